"""Writes the same small transformer by both of PyTorch's exporters: `dynamo.onnx` and `torchscript.onnx`.

    pip install -r requirements.txt && python export.py

Two pre-norm blocks with causal self-attention (`torch.nn.MultiheadAttention`, packed projections), a learned embedding of
positions, and a head on the mean over the sequence; 25,000 random weights. One block's feed-forward part has GELU, the
other's a gate by SiLU, so that both files hold what language models are made of. Nothing is done to the files after export.
"""

import pathlib
import warnings

import numpy as np
import torch
import torch.fx.config
from torch import nn

SEQUENCE, EMBEDDING, HEADS, CLASSES = 12, 32, 4, 5


class Gated(nn.Module):
    """`down(silu(gate(x)) * up(x))`, as in Llama."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(EMBEDDING, width), nn.Linear(EMBEDDING, width)
        self.down = nn.Linear(width, EMBEDDING)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, feed_forward: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(EMBEDDING), nn.LayerNorm(EMBEDDING)
        self.attention = nn.MultiheadAttention(EMBEDDING, HEADS, batch_first=True)
        self.feed_forward = feed_forward

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        return x + self.feed_forward(self.norm2(x))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Embedding(2 * SEQUENCE, EMBEDDING)
        plain = nn.Sequential(nn.Linear(EMBEDDING, 3 * EMBEDDING), nn.GELU(), nn.Linear(3 * EMBEDDING, EMBEDDING))
        self.blocks = nn.ModuleList([Block(plain), Block(Gated(2 * EMBEDDING))])
        self.norm, self.head = nn.LayerNorm(EMBEDDING), nn.Linear(EMBEDDING, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        length = x.shape[1]
        x = x + self.positions(torch.arange(length))
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        for block in self.blocks:
            x = block(x, mask)
        return self.head(self.norm(x).mean(dim=1))


def main() -> None:
    folder = pathlib.Path(__file__).parent
    torch.manual_seed(7)
    model = Transformer().eval()
    for parameter in model.parameters():
        # Away from the zeros and ones that PyTorch starts biases and norms with.
        nn.init.normal_(parameter, std=0.2) if parameter.dim() > 1 else nn.init.uniform_(parameter, -0.1, 0.1)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.8, 1.2)
    inputs = torch.randn(6, 2, SEQUENCE, EMBEDDING)
    warnings.simplefilter("ignore")
    # The exporter writes where in which file each node comes from; that says something of a machine, not of the model.
    torch.fx.config.do_not_emit_stack_traces = True
    torch.onnx.export(model, (inputs[0],), folder / "dynamo.onnx", dynamo=True, external_data=False)
    torch.onnx.export(model, (inputs[0],), folder / "torchscript.onnx", dynamo=False, opset_version=17)
    with torch.no_grad():
        outputs = torch.stack([model(sample) for sample in inputs])
    np.save(folder / "inputs.npy", inputs.numpy())
    np.save(folder / "outputs.npy", outputs.numpy())


main()
