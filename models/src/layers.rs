//! Layers: what a person calls a layer of the model, as runs of nodes.
//!
//! Exporters name nodes by module (`/layers.3/self_attn/MatMul`). Nodes of one outermost module that follow each other
//! are one layer; every other node is a layer of its own.

use std::collections::HashMap;

/// The layer of each node, counted from 0 and never decreasing; `names` are in topological order.
pub(crate) fn layers_of(names: &[&str]) -> Vec<usize> {
    let scopes = scopes_of(names);
    let mut runs: HashMap<&str, usize> = HashMap::new();
    for (index, scope) in scopes.iter().enumerate() {
        if let Some(scope) = scope
            && (index == 0 || scopes[index - 1] != Some(scope))
        {
            *runs.entry(scope).or_default() += 1;
        }
    }
    let whole = |index: usize| scopes[index].filter(|scope| runs[scope] == 1);
    let mut layers = Vec::with_capacity(names.len());
    let mut current = 0;
    for index in 0..names.len() {
        if index > 0 && (whole(index).is_none() || whole(index) != whole(index - 1)) {
            current += 1;
        }
        layers.push(current);
    }
    layers
}

/// Outermost module of each node, below the modules that all nodes share.
fn scopes_of<'a>(names: &[&'a str]) -> Vec<Option<&'a str>> {
    let paths: Vec<Vec<&str>> = names.iter().map(|name| name.trim_start_matches('/').split('/').collect()).collect();
    let modules = |path: &'_ [&'a str]| path[..path.len() - 1].to_vec();
    let mut shared = paths.first().map(|path| modules(path)).unwrap_or_default();
    for path in &paths {
        let same = shared.iter().zip(modules(path)).take_while(|(a, b)| **a == *b).count();
        shared.truncate(same);
    }
    // When one module holds everything, its name separates nothing; but a path that ends with it names no other.
    let depth = shared.len();
    paths.iter().map(|path| (path.len() > depth + 1).then(|| path[depth])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_names_are_layers_of_their_own() {
        assert_eq!(layers_of(&["flatten", "fc1", "relu1"]), [0, 1, 2]);
    }

    #[test]
    fn nodes_of_one_module_are_one_layer() {
        let names = ["/layers.0/a/MatMul", "/layers.0/a/Add", "/layers.1/a/MatMul", "/layers.1/Add", "/head/Gemm"];
        assert_eq!(layers_of(&names), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn a_module_that_is_used_twice_is_no_layer() {
        assert_eq!(layers_of(&["/fc1/Gemm", "/relu/Relu", "/fc2/Gemm", "/relu/Relu_1"]), [0, 1, 2, 3]);
    }

    #[test]
    fn a_module_that_holds_everything_is_looked_into() {
        assert_eq!(layers_of(&["/net/net.0/Gemm", "/net/net.0/Add", "/net/net.1/Relu"]), [0, 0, 1]);
        assert_eq!(layers_of(&["/net/Gemm", "/net/Relu"]), [0, 1]);
    }

    #[test]
    fn no_nodes_are_no_layers() {
        assert!(layers_of(&[]).is_empty());
    }
}
