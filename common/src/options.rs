//! A program's options: from its command line, else from the environment, else from a file, else their defaults.
//!
//! Every option `--some-name` is also the variable `SHARDPROOF_SOME_NAME`, and a key `some-name` of the TOML file that `--config`
//! names. What the file says is put on the command line, so whatever checks options there checks these as well.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser, value_parser};
use toml::Value;

/// The option that names the file.
const FILE: &str = "config";

/// Reads the options of this program; on a mistake, or when asked for help, prints and ends it.
pub fn parse<P: Parser>() -> P {
    parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn parse_from<P: Parser>(arguments: impl IntoIterator<Item = OsString>) -> Result<P, clap::Error> {
    let mut command = with_other_sources(P::command());
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let given = command.clone().ignore_errors(true).try_get_matches_from(&arguments)?;
    if let Some(path) = given.get_one::<PathBuf>(FILE) {
        let text = std::fs::read_to_string(path)
            .map_err(|error| command.error(ErrorKind::Io, format!("{}: {error}", path.display())))?;
        let of_file = arguments_of(&text, &command, &given)
            .map_err(|reason| command.error(ErrorKind::InvalidValue, format!("{}: {reason}", path.display())))?;
        // After the program's name, before whatever ends the options.
        let start = arguments.len().min(1);
        arguments.splice(start..start, of_file);
    }
    P::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

/// The command with a variable for each of its options, and with the option that names the file.
fn with_other_sources(command: Command) -> Command {
    let file = Arg::new(FILE).long(FILE).value_name("FILE").value_parser(value_parser!(PathBuf));
    let file =
        file.help("TOML file with more options, such as `max-runs = 100`; what is given otherwise takes precedence");
    let command = command.arg(file).mut_args(|option| match variable(&option) {
        Some(name) if option.get_env().is_none() => option.env(name).hide_env(true),
        _ => option,
    });
    command.after_help("Every option --some-name can also be given as SHARDPROOF_SOME_NAME in the environment.")
}

/// The variable of an option that users have.
fn variable(option: &Arg) -> Option<String> {
    let name = option.get_long().filter(|_| is_for_users(option))?;
    Some(format!("SHARDPROOF_{}", name.replace('-', "_").to_uppercase()))
}

fn is_for_users(option: &Arg) -> bool {
    !option.is_hide_set() && matches!(option.get_action(), ArgAction::Set | ArgAction::Append | ArgAction::SetTrue)
}

/// What a file says, as arguments, without the options that are given otherwise.
fn arguments_of(text: &str, command: &Command, given: &ArgMatches) -> Result<Vec<OsString>, String> {
    let settings: toml::Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut arguments = Vec::new();
    for (name, value) in settings {
        let mut options = command.get_arguments().filter(|option| is_for_users(option));
        let option = options
            .find(|option| option.get_long() == Some(name.as_str()) && name != FILE)
            .ok_or_else(|| format!("there is no option `{name}`; --help shows all"))?;
        let source = given.value_source(option.get_id().as_str());
        if matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
            continue;
        }
        let mistake = |expected| format!("`{name}` takes {expected}, not {value}");
        match (option.get_action(), &value) {
            (ArgAction::SetTrue, Value::Boolean(true)) => arguments.push(format!("--{name}").into()),
            (ArgAction::SetTrue, Value::Boolean(false)) => {}
            (ArgAction::SetTrue, _) => return Err(mistake("true or false")),
            (ArgAction::Append, Value::Array(values)) => {
                for value in values {
                    let value = scalar(value).ok_or_else(|| mistake("a list of texts or numbers"))?;
                    arguments.push(format!("--{name}={value}").into());
                }
            }
            (_, value) => {
                let value = scalar(value).ok_or_else(|| mistake("a text or a number"))?;
                arguments.push(format!("--{name}={value}").into());
            }
        }
    }
    Ok(arguments)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[derive(Debug, Parser, PartialEq)]
    #[command(name = "program")]
    struct Line {
        place: String,
        #[arg(long, default_value_t = 1)]
        max_runs: u32,
        #[arg(long, default_value_t = 1)]
        share: u32,
        #[arg(long)]
        insecure: bool,
        #[arg(long)]
        dim: Vec<String>,
        #[arg(long, conflicts_with = "insecure")]
        tls: Option<String>,
        #[arg(long, hide = true)]
        of_tests: Option<u32>,
    }

    fn parse(file: &str, arguments: &[&str]) -> Result<Line, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("options.toml");
        std::fs::write(&path, file).unwrap();
        let line = ["program", "here", "--config", path.to_str().unwrap()];
        let line = line.iter().chain(arguments).map(OsString::from);
        parse_from(line).map_err(|error| error.to_string())
    }

    fn line() -> Line {
        Line { place: "here".into(), max_runs: 1, share: 1, insecure: false, dim: vec![], tls: None, of_tests: None }
    }

    #[test]
    fn the_command_line_comes_before_the_file_and_the_file_before_defaults() {
        let file = "max-runs = 5\nshare = \"6\"\ninsecure = true\ndim = [\"a=1\", \"b=2\"]\n";
        let all = Line { max_runs: 5, share: 6, insecure: true, dim: vec!["a=1".into(), "b=2".into()], ..line() };
        assert_eq!(parse(file, &[]), Ok(all));
        let less = Line { max_runs: 7, share: 6, insecure: true, dim: vec!["c=3".into()], ..line() };
        assert_eq!(parse(file, &["--max-runs", "7", "--dim=c=3"]), Ok(less));
        assert_eq!(parse("insecure = false", &[]), Ok(line()));
        assert_eq!(parse_from::<Line>(["program", "here"].map(OsString::from)).unwrap(), line());
    }

    #[test]
    fn mistakes_in_the_file_are_told() {
        for (file, expected) in [
            ("max-run = 5", "no option `max-run`"),
            ("of-tests = 5", "no option `of-tests`"),
            ("config = \"other.toml\"", "no option `config`"),
            ("place = \"there\"", "no option `place`"),
            ("insecure = 1", "`insecure` takes true or false, not 1"),
            ("max-runs = [1]", "`max-runs` takes a text or a number"),
            ("dim = [true]", "`dim` takes a list of texts or numbers"),
            ("max-runs = many", "options.toml"),
            ("max-runs = \"many\"", "--max-runs <MAX_RUNS>"),
            ("insecure = true\ntls = \"here\"", "cannot be used with"),
        ] {
            let error = parse(file, &[]).unwrap_err();
            assert!(error.contains(expected), "{file}: {error}");
        }
        let missing = ["program", "here", "--config", "/nowhere/options.toml"].map(OsString::from);
        assert!(parse_from::<Line>(missing).unwrap_err().to_string().contains("/nowhere/options.toml"));
    }

    #[test]
    fn every_option_for_users_has_a_variable() {
        let command = with_other_sources(Line::command());
        let variable = |id: &str| {
            let mut all = command.get_arguments();
            all.find(|option| option.get_id() == id).unwrap().get_env().map(|name| name.to_str().unwrap().to_owned())
        };
        assert_eq!(variable("max_runs").as_deref(), Some("SHARDPROOF_MAX_RUNS"));
        assert_eq!(variable(FILE).as_deref(), Some("SHARDPROOF_CONFIG"));
        assert_eq!((variable("place"), variable("of_tests")), (None, None));
    }
}
