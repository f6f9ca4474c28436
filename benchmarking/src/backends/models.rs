//! Which models are compared: given by name, or as configurations of a family whose members differ in size.

use std::str::FromStr;

/// A family of generated models, see the zoo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `mlp:DEPTH,WIDTH`.
    Mlp,
    /// `cnn:SHAPE,WIDTH`.
    Cnn,
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "mlp" => Ok(Self::Mlp),
            "cnn" => Ok(Self::Cnn),
            _ => Err(format!("unknown model type `{text}`: expected one of mlp, cnn")),
        }
    }
}

/// The names of the family's members in `configs`, `FIRST,WIDTH` each, with colons between.
///
/// # Errors
/// Names the configuration that is none.
pub fn members(family: Family, configs: &str) -> Result<Vec<String>, String> {
    configs.split(':').map(|config| member(family, config)).collect()
}

fn member(family: Family, config: &str) -> Result<String, String> {
    let (name, form) = match family {
        Family::Mlp => ("mlp", "DEPTH,WIDTH, such as 5,100"),
        Family::Cnn => ("cnn", "SHAPE,WIDTH, such as mnist,7 or cifar10,7"),
    };
    let (first, width) = config.split_once(',').map(|(first, width)| (first.trim(), width.trim())).unzip();
    let member = format!("{name}:{},{}", first.unwrap_or_default(), width.unwrap_or_default());
    match shardproof_models::zoo::is_generated(&member) {
        true => Ok(member),
        false => {
            Err(format!("the configuration `{config}` is none of the models {name}, or too large: expected {form}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use shardproof_models::ModelSource;

    use super::*;
    use crate::backends::subject::Subject;

    #[test]
    fn configurations_are_members_of_their_family() {
        assert_eq!(members(Family::Mlp, "5,100:7,50"), Ok(vec!["mlp:5,100".to_owned(), "mlp:7,50".to_owned()]));
        let cnns = members(Family::Cnn, "mnist,7: cifar10 , 8");
        assert_eq!(cnns, Ok(vec!["cnn:mnist,7".to_owned(), "cnn:cifar10,8".to_owned()]));
    }

    #[test]
    fn members_differ_in_size() {
        let parameters = |family, configs| -> Vec<u64> {
            let load = |name: &String| Subject::load(&ModelSource::resolve(name).unwrap(), 1).unwrap().parameters;
            members(family, configs).unwrap().iter().map(load).collect()
        };
        assert_eq!(parameters(Family::Mlp, "1,9:3,8"), [10 * 17, 8 * 17 + 8 * 9 + 10 * 9]);
        let mnist = |width: u64| width * 26 + 2 * width * (25 * width + 1) + 10 * width * (32 * width + 1);
        let classes = |width: u64| 10 * (10 * width + 1);
        assert_eq!(parameters(Family::Cnn, "mnist,1:mnist,3"), [1, 3].map(|width| mnist(width) + classes(width)));
        assert_eq!(parameters(Family::Cnn, "cifar10,2"), [2 * 76 + 4 * 51 + 20 * 101 + 10 * 21]);
    }

    #[test]
    fn what_is_no_configuration_is_named() {
        for (family, configs, wrong) in [
            (Family::Mlp, "5,100:7", "`7`"),
            (Family::Mlp, "mnist,7", "`mnist,7`"),
            (Family::Mlp, "", "``"),
            (Family::Mlp, "5,0", "`5,0`"),
            (Family::Cnn, "mnist,7:imagenet,7", "`imagenet,7`"),
            (Family::Cnn, "5,100", "`5,100`"),
        ] {
            let reason = members(family, configs).unwrap_err();
            assert!(reason.contains(wrong), "{reason}");
        }
        assert!("rnn".parse::<Family>().is_err());
    }
}
