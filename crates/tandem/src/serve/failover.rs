//! Which mode a database is created in, and who takes over in one with a single primary.

use serde::Deserialize;
use tandem_node::{Mode, NodeConfig};
use tandem_types::{Error, Result};

/// The options that say so.
#[derive(clap::Args, Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FailoverArgs {
    /// Who takes writes, said when the database is created and checked afterwards: every node, or one at a time, this one
    /// first [default: multi-primary]
    #[arg(long, env = "TANDEM_MODE", value_name = "multi-primary|single-primary", help_heading = "Roles")]
    mode: Option<String>,
    /// With a single primary: how gladly this node takes over when that one falls silent (ALTER DATABASE SET
    /// (failover_after = '3s')); the highest first, then the most caught-up; never: only by `tandem promote` [default: 50]
    #[arg(long, env = "TANDEM_FAILOVER_PRIORITY", value_name = "0..100|never", help_heading = "Roles")]
    failover_priority: Option<Priority>,
}

/// A number or a word: a file may give either.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
enum Priority {
    Number(i64),
    Word(String),
}

impl std::str::FromStr for Priority {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Self::Word(text.to_owned()))
    }
}

impl FailoverArgs {
    /// What is not given here is as the file says.
    pub fn or(self, file: Self) -> Self {
        Self {
            mode: self.mode.or(file.mode),
            failover_priority: self.failover_priority.or(file.failover_priority),
        }
    }

    /// Adds them to a node's configuration.
    pub fn apply(&self, node: &mut NodeConfig) -> Result<()> {
        if let Some(mode) = &self.mode {
            let known = Mode::parse(mode.trim()).ok_or_else(|| {
                Error::invalid(format!("--mode {mode:?} is no mode: say multi-primary or single-primary"))
            })?;
            node.mode = Some(known);
        }
        if let Some(priority) = &self.failover_priority {
            node.failover_priority = priority.value()?;
        }
        Ok(())
    }
}

impl Priority {
    fn value(&self) -> Result<Option<u8>> {
        let wrong = |text: &str| {
            Error::invalid(format!("--failover-priority {text:?} is no priority: say 0 to 100, or never"))
        };
        let number = match self {
            Self::Word(word) if word.trim() == "never" => return Ok(None),
            Self::Word(word) => word.trim().parse().map_err(|_| wrong(word))?,
            Self::Number(number) => *number,
        };
        let priority = u8::try_from(number).ok().filter(|n| *n <= 100);
        priority.map(Some).ok_or_else(|| wrong(&number.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(mode: Option<&str>, priority: Option<Priority>) -> Result<NodeConfig> {
        let mut node = NodeConfig::default();
        let args = FailoverArgs { mode: mode.map(str::to_owned), failover_priority: priority };
        args.apply(&mut node).map(|()| node)
    }

    #[test]
    fn modes_and_priorities_are_read_or_refused_with_the_flag() {
        let node = applied(None, None).unwrap();
        assert_eq!((node.mode, node.failover_priority), (None, Some(50)));
        let word = |text: &str| Some(text.parse::<Priority>().unwrap());
        let node = applied(Some("single-primary"), word("never")).unwrap();
        assert_eq!((node.mode, node.failover_priority), (Some(Mode::SinglePrimary), None));
        assert_eq!(applied(None, word("100")).unwrap().failover_priority, Some(100));
        assert_eq!(applied(None, Some(Priority::Number(0))).unwrap().failover_priority, Some(0));
        for wrong in ["101", "-1", "often", ""] {
            let error = applied(None, word(wrong)).unwrap_err();
            assert!(error.message().contains("--failover-priority"), "{error}");
        }
        assert!(applied(Some("dual"), None).unwrap_err().message().contains("--mode"));
    }

    #[test]
    fn a_file_may_say_a_number_or_a_word() {
        let read = |text: &str| toml::from_str::<FailoverArgs>(text).unwrap();
        assert_eq!(read("failover-priority = 7").failover_priority, Some(Priority::Number(7)));
        let flags = FailoverArgs { mode: Some("multi-primary".into()), ..FailoverArgs::default() };
        let both = flags.or(read("failover-priority = \"never\"\nmode = \"single-primary\""));
        assert_eq!(both.mode.as_deref(), Some("multi-primary"));
        assert_eq!(both.failover_priority, Some(Priority::Word("never".into())));
    }
}
