//! What is measured for the published results: the benchmarks of this package, one after the other.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::error::BenchError;
use crate::progress::Progress;

/// One start of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// The program, which lies beside this one.
    pub program: &'static str,
    /// Its arguments; `{out}` stands for the directory of all results.
    pub arguments: Vec<String>,
}

impl Task {
    fn new(line: &'static str) -> Self {
        let mut words = line.split(' ');
        let program = words.next().unwrap_or_default();
        Self { program, arguments: words.map(str::to_owned).collect() }
    }
}

/// Short enough for two minutes, on a small model.
const QUICK: &[&str] = &[
    "system_benchmark mlp --out {out}/system",
    "accuracy_benchmark mlp {out}/accuracy/mlp",
    "backend_benchmark mlp --systems gkr-committed,gkr-public --out {out}/models/small",
    "backend_benchmark --configs 2,32:3,64 --systems gkr-committed,gkr-public --out {out}/growth/small",
    "backend_benchmark --compatibility --systems gkr-committed --out {out}/compatibility",
    "load_benchmark mlp --clients 1,10 --seconds 2 --out {out}/load",
    "pipeline_benchmark mlp --runs 50 --out {out}/pipeline",
];

/// Everything that is published. ezkl is tried where it may do within 20 minutes; what is predicted not to fit in memory is
/// a row that says so.
const FULL: &[&str] = &[
    "system_benchmark mlp --out {out}/system",
    "system_benchmark testing --out {out}/system",
    "system_benchmark cnn --out {out}/system",
    "system_benchmark mlp2 --out {out}/system",
    "system_benchmark attention --out {out}/system",
    "system_benchmark mlp784 --out {out}/system",
    "system_benchmark cnn264k --out {out}/system",
    "system_benchmark dense4m --out {out}/system",
    "system_benchmark mlp2 --weights public --out {out}/system",
    "system_benchmark mlp --backend ezkl --out {out}/system",
    "system_benchmark testing --backend ezkl --out {out}/system",
    "system_benchmark attention --backend ezkl --out {out}/system",
    "load_benchmark mlp --out {out}/load",
    "pipeline_benchmark attention gpt2block cnn:cifar10,256 --out {out}/pipeline",
    "accuracy_benchmark mlp {out}/accuracy/mlp",
    "accuracy_benchmark testing {out}/accuracy/testing",
    "accuracy_benchmark cnn {out}/accuracy/cnn",
    "accuracy_benchmark mlp2 {out}/accuracy/mlp2",
    "accuracy_benchmark attention {out}/accuracy/attention",
    "backend_benchmark --compatibility --adapter {adapters}/groth16 --out {out}/compatibility",
    "backend_benchmark mlp testing --adapter {adapters}/groth16 --out {out}/models/small",
    "backend_benchmark --configs 3,51:3,85:3,120:3,170 --adapter {adapters}/groth16 --out {out}/growth/small",
    "backend_benchmark --configs 3,250:3,350:3,500:4,585 --repeats 1 --adapter {adapters}/groth16 --out {out}/growth/middle",
    "backend_benchmark cnn264k dense4m --adapter {adapters}/groth16 --out {out}/models/published",
    "backend_benchmark cnn mlp784 mlp2 --repeats 1 --adapter {adapters}/groth16 --out {out}/models/large",
    "backend_benchmark --configs 5,725:6,900:7,1080:8,1450:8,1670 --adapter {adapters}/groth16 --out {out}/growth/large",
    "system_benchmark mlp2 4 --backend ezkl --apart-only --time-limit 1200 --out {out}/system",
    "system_benchmark cnn 4 --backend ezkl --apart-only --time-limit 1200 --out {out}/system",
];

/// The tasks of a quick or a full measurement with results below `out` and adapters in `adapters`.
pub fn tasks(full: bool, out: &Path, adapters: &Path) -> Vec<Task> {
    let (out, adapters) = (out.display().to_string(), adapters.display().to_string());
    let filled = |word: &String| word.replace("{out}", &out).replace("{adapters}", &adapters);
    let lines = if full { FULL } else { QUICK };
    let filled_task = |&line: &&'static str| {
        let Task { program, arguments } = Task::new(line);
        let arguments = arguments.iter().filter(|word| !word.is_empty()).map(filled).collect();
        Task { program, arguments }
    };
    lines.iter().map(filled_task).collect()
}

/// Runs the tasks. One that fails has told why in its tables, so the others go on.
///
/// # Errors
/// When a program is not built.
pub async fn run(tasks: &[Task]) -> Result<(), BenchError> {
    let progress = Progress::begin();
    let own = std::env::current_exe().map_err(BenchError::io("where this program is"))?;
    for (index, task) in tasks.iter().enumerate() {
        let path = own.with_file_name(task.program);
        if !path.is_file() {
            return Err(BenchError::NotBuilt { path });
        }
        progress.note(&format!("{} of {}: {} {}", index + 1, tasks.len(), task.program, task.arguments.join(" ")));
        let mut command = Command::new(&path);
        command.args(&task.arguments).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let status = command.status().await.map_err(|source| BenchError::Start { path, source })?;
        if !status.success() {
            progress.note(&format!("{} ended with {status}", task.program));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_commands() {
        let tasks = tasks(false, Path::new("/results"), Path::new("/adapters"));
        assert_eq!(tasks[0].program, "system_benchmark");
        assert_eq!(tasks[0].arguments, ["mlp", "--out", "/results/system"]);
        assert_eq!(tasks.len(), QUICK.len());
    }

    #[test]
    fn nothing_is_left_to_fill_in() {
        for task in tasks(true, Path::new("/results"), Path::new("/adapters")) {
            assert!(task.arguments.iter().all(|word| !word.is_empty() && !word.contains(['{', ' '])), "{task:?}");
        }
    }
}
