//! A program's options: from its command line, else from the environment, else from a file, else their defaults.
//!
//! Every option `--some-name` is also the variable `SHARDPROOF_SOME_NAME`, and a key `some-name` of the TOML file that `--config`
//! names. What the file says is put on the command line, so whatever checks options there checks these as well. A variable that is
//! empty counts as none.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser, value_parser};
use toml::Value;

/// The option that names the file.
const FILE: &str = "config";

/// Reads the options of this program; on a mistake, or when asked for help, prints and ends it.
pub fn parse<P: Parser>() -> P {
    parse_from(with_other_sources(P::command()), None, std::env::args_os()).unwrap_or_else(|error| error.exit())
}

/// The same for a program with commands, of which `services` alone take their options from the environment and a file as well.
pub fn parse_commands<P: Parser>(services: &[&str]) -> P {
    parse_commands_from(services, std::env::args_os()).unwrap_or_else(|error| error.exit())
}

fn parse_commands_from<P: Parser>(
    services: &[&str],
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<P, clap::Error> {
    let mut command = P::command();
    for &service in services {
        command = command.mut_subcommand(service, with_other_sources);
    }
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let given = arguments.iter().skip(1).find(|argument| !argument.as_encoded_bytes().starts_with(b"-"));
    let service = services.iter().copied().find(|&service| given.is_some_and(|given| given == service));
    match service {
        Some(_) => parse_from(command, service, arguments),
        None => P::from_arg_matches(&without_empty_variables(command).try_get_matches_from(arguments)?),
    }
}

/// Parses where `command`, or the one below it named `service`, has the other sources.
fn parse_from<P: Parser>(
    command: Command,
    service: Option<&str>,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<P, clap::Error> {
    let command = without_empty_variables(command);
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let given = command.clone().ignore_errors(true).try_get_matches_from(&arguments)?;
    let given = service.map_or(Some(&given), |service| given.subcommand_matches(service));
    let Some((given, path)) = given.and_then(|given| Some((given, given.get_one::<PathBuf>(FILE)?))) else {
        return P::from_arg_matches(&command.try_get_matches_from(arguments)?);
    };
    let of_service = service.and_then(|service| command.find_subcommand(service)).unwrap_or(&command);
    let refused = |kind, reason: &str| of_service.clone().error(kind, format!("{}: {reason}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(ErrorKind::Io, &error.to_string()))?;
    let of_file = arguments_of(&text, of_service, given).map_err(|reason| refused(ErrorKind::InvalidValue, &reason))?;
    // After the name of the program or the service, before whatever ends the options.
    let name = service.and_then(|service| arguments.iter().position(|argument| argument == service)).unwrap_or(0);
    let (before, after) = arguments.split_at(arguments.len().min(name + 1));
    match command.clone().try_get_matches_from([before, &of_file, after].concat()) {
        Ok(matches) => P::from_arg_matches(&matches),
        // What is right without the file is wrong in it.
        Err(error) if command.clone().try_get_matches_from(&arguments).is_ok() => {
            Err(refused(error.kind(), &reason(&error)))
        }
        Err(error) => Err(error),
    }
}

/// What is wrong, without how the program is called.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let reason = text.split("\n\n").next().unwrap_or_default();
    reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
}

/// The variables of this process that some program here would take for its options.
///
/// Whoever decides what its children do takes these away from them.
pub fn variables() -> impl Iterator<Item = OsString> {
    let kept = ["SHARDPROOF_CACHE_DIR", "SHARDPROOF_PYTHON"];
    let names = std::env::vars_os().map(|(name, _)| name);
    names.filter(move |name| {
        name.as_encoded_bytes().starts_with(b"SHARDPROOF_") && !kept.iter().any(|&kept| name == kept)
    })
}

/// The command, and those below it, without the variables that are empty: for who writes `SHARDPROOF_TLS=` there is none.
fn without_empty_variables(command: Command) -> Command {
    let command = command.mut_args(|option| {
        let value = option.get_env().and_then(std::env::var_os);
        if value.is_some_and(|value| value.is_empty()) { option.env(Resettable::Reset) } else { option }
    });
    command.mut_subcommands(without_empty_variables)
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
        parse_line(line).map_err(|error| error.to_string())
    }

    fn parse_line(line: impl IntoIterator<Item = OsString>) -> Result<Line, clap::Error> {
        parse_from(with_other_sources(Line::command()), None, line)
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
        assert_eq!(parse_line(["program", "here"].map(OsString::from)).unwrap(), line());
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
            ("max-runs = \"many\"", "options.toml: invalid value 'many' for '--max-runs <MAX_RUNS>'"),
            ("insecure = true\ntls = \"here\"", "cannot be used with"),
        ] {
            let error = parse(file, &[]).unwrap_err();
            assert!(error.contains(expected), "{file}: {error}");
        }
        let missing = ["program", "here", "--config", "/nowhere/options.toml"].map(OsString::from);
        assert!(parse_line(missing).unwrap_err().to_string().contains("/nowhere/options.toml"));
    }

    #[test]
    fn what_is_wrong_on_the_command_line_is_not_said_of_the_file() {
        let error = parse("max-runs = 5", &["--share", "many"]).unwrap_err();
        assert!(error.contains("--share") && !error.contains("options.toml"), "{error}");
    }

    #[derive(Debug, Parser, PartialEq)]
    #[command(name = "program")]
    struct Commands {
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: Choice,
    }

    #[derive(Debug, clap::Subcommand, PartialEq)]
    enum Choice {
        Serve(Line),
        Ask(Line),
    }

    #[test]
    fn of_several_commands_the_services_alone_take_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("options.toml");
        std::fs::write(&path, "max-runs = 5").unwrap();
        let parse = |line: &[&str]| {
            let line = [line, &["--config", path.to_str().unwrap()]].concat();
            let line = line.into_iter().map(OsString::from);
            parse_commands_from::<Commands>(&["serve"], line).map_err(|error| error.to_string())
        };
        let served = Line { max_runs: 5, ..line() };
        let of = |json, command| Ok(Commands { json, command });
        assert_eq!(parse(&["program", "serve", "here"]), of(false, Choice::Serve(served)));
        // A place may be called as the command is.
        let served = Line { place: "serve".to_owned(), max_runs: 5, share: 2, ..line() };
        assert_eq!(parse(&["program", "--json", "serve", "--share=2", "serve"]), of(true, Choice::Serve(served)));
        assert!(parse(&["program", "ask", "here"]).unwrap_err().contains("unexpected argument '--config'"));
        assert!(parse(&["program", "ask", "serve"]).unwrap_err().contains("unexpected argument '--config'"));
        std::fs::write(&path, "max-runs = \"many\"").unwrap();
        let error = parse(&["program", "serve", "here"]).unwrap_err();
        assert!(error.contains("options.toml: invalid value 'many'"), "{error}");
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
