//! Bounds on a statement, checked before anything recurses into it.
//!
//! The parser bounds how deeply expressions nest, but a flat chain (`1 + 1 + 1 …`) becomes a tree as deep
//! as the chain is long, and every later stage walks that tree on the stack. So chains, joins and
//! set operations are counted here, on tokens, per level of parentheses.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use tandem_types::{Error, Result};

/// What a statement may be, at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementLimits {
    /// Of the text.
    pub max_bytes: usize,
    /// Of the text, white space and comments included: bounds the memory that parsing takes.
    pub max_tokens: usize,
    /// Parentheses, brackets and `CASE`s within one another.
    pub max_depth: usize,
    /// Operators in one expression and level, a branch of `AND` and `OR` counted with its longest operand.
    pub max_chain: usize,
    /// `UNION`s and their like at one level.
    pub max_set_operations: usize,
    /// Joins at one level, whether written as `JOIN` or as a comma.
    pub max_joins: usize,
    /// Values of an `IN` list.
    pub max_in_list: usize,
}

impl Default for StatementLimits {
    fn default() -> Self {
        Self {
            max_bytes: 16 << 20,
            max_tokens: 1_000_000,
            max_depth: 64,
            max_chain: 500,
            max_set_operations: 500,
            max_joins: 200,
            max_in_list: 50_000,
        }
    }
}

/// Words that join two operands, or follow one, and so deepen the tree.
const CHAINING: &[&str] = &[
    "is",
    "in",
    "like",
    "ilike",
    "similar",
    "rlike",
    "regexp",
    "glob",
    "match",
    "between",
    "collate",
    "at",
    "isnull",
    "notnull",
    "div",
    "mod",
    "overlaps",
    "member",
    "operator",
    "pivot",
    "unpivot",
    "match_recognize",
];

/// Parts of one dotted name.
const MAX_NAME_PARTS: usize = 16;

impl StatementLimits {
    /// The cheap look at the text that decides whether tokens are worth making.
    pub(super) fn check_text(&self, sql: &str) -> Result<()> {
        if sql.len() > self.max_bytes {
            return Err(Error::invalid(format!(
                "the statement has {} bytes, at most {} are allowed: send rows by Flight DoPut instead",
                sql.len(),
                self.max_bytes
            )));
        }
        // A token takes a byte at least, so short texts need no count.
        if sql.len() > self.max_tokens && count_tokens(sql) > self.max_tokens {
            return Err(Error::invalid(format!(
                "the statement has more than {} tokens: send rows by Flight DoPut instead",
                self.max_tokens
            )));
        }
        Ok(())
    }

    /// The counts that need tokens, for one statement.
    pub(super) fn check_tokens(&self, tokens: &[TokenWithSpan]) -> Result<()> {
        let mut scan = Scan { limits: self, levels: vec![Level::default()], types: 0, periods: 0 };
        let mut previous = None;
        for token in tokens {
            scan.take(&token.token, previous).map_err(|what| {
                let at = token.span.start;
                Error::invalid(format!("line {}, column {}: {what}", at.line, at.column))
            })?;
            previous = Some(&token.token);
        }
        Ok(())
    }
}

/// What was counted since a level opened.
#[derive(Default)]
struct Level {
    is_case: bool,
    is_in_list: bool,
    /// In a `FROM` clause, or past one: commas may be joins.
    after_from: bool,
    logical: usize,
    chain: usize,
    set_operations: usize,
    joins: usize,
    items: usize,
}

struct Scan<'a> {
    limits: &'a StatementLimits,
    levels: Vec<Level>,
    /// Open `<` of types such as `ARRAY<…>`.
    types: usize,
    /// Of the dotted name that is being read.
    periods: usize,
}

impl Scan<'_> {
    fn take(&mut self, token: &Token, previous: Option<&Token>) -> Result<(), String> {
        match token {
            Token::Period => self.periods += 1,
            Token::Word(_) => {}
            _ => self.periods = 0,
        }
        if self.periods >= MAX_NAME_PARTS {
            return Err(format!("a name has more than {MAX_NAME_PARTS} parts"));
        }
        match token {
            Token::LParen | Token::LBrace => {
                let is_in_list = previous.is_some_and(|p| is_word(p, &["in"]));
                self.open(Level { is_in_list, ..Level::default() })
            }
            Token::LBracket => {
                self.count_operator()?;
                self.open(Level::default())
            }
            Token::RParen | Token::RBrace | Token::RBracket => {
                self.close_cases();
                self.close();
                Ok(())
            }
            Token::Comma => self.count_comma(),
            Token::Word(word) if word.quote_style.is_none() => self.take_word(word, previous),
            Token::Lt if previous.is_some_and(|p| is_word(p, &["array", "struct", "map"])) => {
                self.types += 1;
                if self.types > self.limits.max_depth {
                    return Err(format!("types nest deeper than {} levels", self.limits.max_depth));
                }
                Ok(())
            }
            Token::Gt | Token::ShiftRight if self.types > 0 => {
                self.types -= if *token == Token::Gt { 1 } else { 2.min(self.types) };
                Ok(())
            }
            token if ends_operand(token) || matches!(token, Token::Period | Token::SemiColon) => Ok(()),
            _ => self.count_operator(),
        }
    }

    fn take_word(&mut self, word: &Word, previous: Option<&Token>) -> Result<(), String> {
        let text = word.value.to_ascii_lowercase();
        match text.as_str() {
            "case" => return self.open(Level { is_case: true, ..Level::default() }),
            "end" => {
                if self.levels.last().is_some_and(|level| level.is_case) {
                    self.close();
                }
                return Ok(());
            }
            _ => {}
        }
        // A keyword where an operand must stand is a name: it neither joins nor ends an expression.
        if !previous.is_some_and(ends_operand) {
            return Ok(());
        }
        let limits = self.limits;
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        match text.as_str() {
            "and" | "or" | "xor" => {
                level.logical += 1;
                level.chain = 0;
            }
            "union" | "except" | "intersect" | "minus" => {
                level.set_operations += 1;
                (level.logical, level.chain) = (0, 0);
            }
            "select" => {
                (level.logical, level.chain, level.joins) = (0, 0, 0);
                level.after_from = false;
            }
            "where" | "having" if !level.is_case => (level.logical, level.chain) = (0, 0),
            "from" if !previous.is_some_and(|p| is_word(p, &["distinct"])) => level.after_from = true,
            "from" => level.chain += 1,
            "join" => level.joins += 1,
            word if CHAINING.contains(&word) => level.chain += 1,
            _ => {}
        }
        level.check(limits)
    }

    fn count_operator(&mut self) -> Result<(), String> {
        let limits = self.limits;
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        level.chain += 1;
        level.check(limits)
    }

    fn count_comma(&mut self) -> Result<(), String> {
        self.close_cases();
        let limits = self.limits;
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        (level.logical, level.chain) = (0, 0);
        level.items += 1;
        if level.after_from {
            level.joins += 1;
        }
        level.check(limits)
    }

    fn open(&mut self, level: Level) -> Result<(), String> {
        self.levels.push(level);
        if self.levels.len() > self.limits.max_depth {
            return Err(format!("the statement nests deeper than {} levels", self.limits.max_depth));
        }
        Ok(())
    }

    /// A `CASE` without `END` must not hide what follows; the parser will name it.
    fn close_cases(&mut self) {
        while self.levels.len() > 1 && self.levels.last().is_some_and(|level| level.is_case) {
            self.levels.pop();
        }
    }

    fn close(&mut self) {
        if self.levels.len() > 1 {
            self.levels.pop();
        }
    }
}

impl Level {
    fn check(&self, limits: &StatementLimits) -> Result<(), String> {
        let over = |what: &str, limit: usize| Err(format!("more than {limit} {what}"));
        if self.logical + self.chain > limits.max_chain {
            return over("operators in one expression", limits.max_chain);
        }
        if self.set_operations > limits.max_set_operations {
            return over("set operations in one query", limits.max_set_operations);
        }
        if self.joins > limits.max_joins {
            return over("joins in one query", limits.max_joins);
        }
        if self.is_in_list && self.items >= limits.max_in_list {
            return over("values in an IN list", limits.max_in_list);
        }
        Ok(())
    }
}

fn is_word(token: &Token, words: &[&str]) -> bool {
    matches!(
        token,
        Token::Word(Word { value, quote_style: None, .. }) if words.iter().any(|w| value.eq_ignore_ascii_case(w))
    )
}

/// Whether a token can be the last one of an operand.
fn ends_operand(token: &Token) -> bool {
    matches!(
        token,
        Token::Word(_)
            | Token::Number(_, _)
            | Token::RParen
            | Token::RBracket
            | Token::RBrace
            | Token::Mul
            | Token::Placeholder(_)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::TripleSingleQuotedByteStringLiteral(_)
            | Token::TripleDoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::TripleSingleQuotedRawStringLiteral(_)
            | Token::TripleDoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// About as many as the tokenizer would make, white space included.
///
/// Exact where quotes are plain; the tokenizer's rarer forms of quoting may shift it either way, which
/// costs memory at worst: the byte limit holds regardless.
fn count_tokens(sql: &str) -> usize {
    let bytes = sql.as_bytes();
    let mut count = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        count += 1;
        let is_word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80;
        let after = |n: usize| bytes.get(at + n..).unwrap_or_default();
        at += match byte {
            b'\'' | b'"' | b'`' => 1 + quoted(after(1), byte),
            b'-' if after(1).first() == Some(&b'-') => {
                after(0).iter().position(|b| *b == b'\n').unwrap_or(after(0).len())
            }
            byte if is_word(&byte) => after(0).iter().take_while(|b| is_word(b)).count(),
            _ => 1,
        };
    }
    count
}

/// Length of a quoted text with its closing quote, a doubled quote standing for one.
fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while let Some(end) = bytes.get(at..).unwrap_or_default().iter().position(|b| *b == quote) {
        at += end + 1;
        if bytes.get(at) != Some(&quote) {
            return at;
        }
        at += 1;
    }
    bytes.len()
}
