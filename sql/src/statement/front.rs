//! A cursor over one statement's tokens, and the small pieces that statements share.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Word};
use tandem_types::{DEFAULT_CATALOG, Error, Result, TableName};

use super::READ_ONLY_SCHEMAS;
use super::as_of::Versions;
use super::tokens::DIALECT;

/// One statement's tokens, read from the left.
pub(super) struct Front<'a> {
    parser: Parser<'a>,
    default_schema: &'a str,
    versions: Versions,
}

impl<'a> Front<'a> {
    pub(super) fn new(tokens: Vec<TokenWithSpan>, default_schema: &'a str) -> Self {
        let parser = Parser::new(&DIALECT).with_tokens_with_locations(tokens);
        Self { parser, default_schema, versions: Versions::default() }
    }

    /// With the moments that were cut out of the tokens.
    pub(super) fn with_versions(self, versions: Versions) -> Self {
        Self { versions, ..self }
    }

    /// Whether the token `ahead` of the next one is this unquoted word, in any case.
    pub(super) fn at_word(&self, ahead: usize, word: &str) -> bool {
        matches!(
            &self.parser.peek_nth_token_ref(ahead).token,
            Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word)
        )
    }

    pub(super) fn at_words(&self, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.at_word(i, word))
    }

    pub(super) fn at_token(&self, ahead: usize, token: &Token) -> bool {
        self.parser.peek_nth_token_ref(ahead).token == *token
    }

    /// Takes the word if it is next.
    pub(super) fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    /// Takes all of the words if they are next, else none.
    pub(super) fn words(&mut self, words: &[&str]) -> bool {
        let found = self.at_words(words);
        if found {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        found
    }

    pub(super) fn token(&mut self, token: &Token) -> bool {
        self.parser.consume_token(token)
    }

    pub(super) fn next(&mut self) -> TokenWithSpan {
        self.parser.next_token()
    }

    pub(super) fn peek(&self) -> &TokenWithSpan {
        self.parser.peek_token_ref()
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { Err(self.expected(&word.to_uppercase())) }
    }

    pub(super) fn expect(&mut self, token: &Token) -> Result<()> {
        if self.token(token) { Ok(()) } else { Err(self.expected(&token.to_string())) }
    }

    /// Refuses whatever comes after a complete statement.
    pub(super) fn end(&self) -> Result<()> {
        if self.at_end() {
            self.versions.check_used()
        } else {
            Err(self.expected("the end of the statement"))
        }
    }

    pub(super) fn at_end(&self) -> bool {
        self.at_token(0, &Token::EOF)
    }

    /// `line 1, column 8` of the next token.
    pub(super) fn place(&self) -> String {
        place(self.peek().span.start)
    }

    /// What stands next, as an error.
    pub(super) fn expected(&self, what: &str) -> Error {
        let next = self.peek();
        match &next.token {
            Token::EOF => Error::invalid(format!("expected {what}, found the end of the statement")),
            token => Error::invalid(format!("{}: expected {what}, found {token}", place(next.span.start))),
        }
    }

    /// The next token is understood and refused.
    pub(super) fn unsupported(&self, what: impl std::fmt::Display) -> Error {
        Error::unsupported(format!("{}: {what}", self.place()))
    }

    pub(super) fn invalid(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("{}: {what}", self.place()))
    }

    /// An identifier: folded to lower case unless quoted.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        let Token::Word(word) = &self.peek().token else { return Err(self.expected(what)) };
        let name = folded(word);
        self.parser.advance_token();
        Ok(name)
    }

    /// A string in single quotes.
    pub(super) fn string(&mut self, what: &str) -> Result<String> {
        let Token::SingleQuotedString(text) = &self.peek().token else { return Err(self.expected(what)) };
        let text = text.clone();
        self.parser.advance_token();
        Ok(text)
    }

    /// Identifiers between parentheses, possibly none.
    pub(super) fn names(&mut self, what: &str) -> Result<Vec<String>> {
        self.expect(&Token::LParen)?;
        let mut names = Vec::new();
        if self.token(&Token::RParen) {
            return Ok(names);
        }
        loop {
            names.push(self.name(what)?);
            if self.list_ends()? {
                return Ok(names);
            }
        }
    }

    /// After an item of a list in parentheses: whether it was the last one.
    pub(super) fn list_ends(&mut self) -> Result<bool> {
        if self.token(&Token::RParen) {
            return Ok(true);
        }
        if self.token(&Token::Comma) { Ok(false) } else { Err(self.expected(", or )")) }
    }

    fn dotted(&mut self, what: &str) -> Result<Vec<String>> {
        let mut parts = vec![self.name(what)?];
        while self.token(&Token::Period) {
            parts.push(self.name(what)?);
        }
        Ok(parts)
    }

    /// `table`, `schema.table` or `tandem.schema.table`.
    pub(super) fn table_name(&mut self) -> Result<TableName> {
        let place = self.place();
        let parts = self.dotted("a table's name")?;
        self.bind(parts).map_err(|e| e.context(place))
    }

    fn bind(&self, parts: Vec<String>) -> Result<TableName> {
        match <[String; 1]>::try_from(parts) {
            Ok([table]) => Ok(TableName::new(self.default_schema, table)),
            Err(parts) => match <[String; 2]>::try_from(parts) {
                Ok([schema, table]) => Ok(TableName::new(schema, table)),
                Err(parts) => match <[String; 3]>::try_from(parts) {
                    Ok([catalog, schema, table]) => {
                        known_catalog(&catalog)?;
                        Ok(TableName::new(schema, table))
                    }
                    Err(parts) => Err(Error::invalid(format!("{} is no table's name", parts.join(".")))),
                },
            },
        }
    }

    /// A table that the statement changes.
    pub(super) fn target(&mut self) -> Result<TableName> {
        let place = self.place();
        let name = self.table_name()?;
        writable_schema(&name.schema).map_err(|e| e.context(place))?;
        Ok(name)
    }

    /// A table to change, as the SQL parser read it.
    pub(super) fn target_of(&self, name: &ast::ObjectName) -> Result<TableName> {
        let parts = name.0.iter().map(|part| match part {
            ast::ObjectNamePart::Identifier(ident) => Ok(folded_ident(ident)),
            ast::ObjectNamePart::Function(_) => Err(Error::invalid(format!("{name} is no table's name"))),
        });
        let name = self.bind(parts.collect::<Result<_>>()?)?;
        writable_schema(&name.schema)?;
        Ok(name)
    }

    /// `schema` or `tandem.schema`.
    pub(super) fn schema_name(&mut self) -> Result<String> {
        let place = self.place();
        let parts = self.dotted("a schema's name")?;
        match <[String; 1]>::try_from(parts) {
            Ok([schema]) => Ok(schema),
            Err(parts) => match <[String; 2]>::try_from(parts) {
                Ok([catalog, schema]) => {
                    known_catalog(&catalog).map_err(|e| e.context(place))?;
                    Ok(schema)
                }
                Err(parts) => {
                    Err(Error::invalid(format!("{place}: {} is no schema's name", parts.join("."))))
                }
            },
        }
    }

    /// Whether a query begins here.
    pub(super) fn at_query(&self) -> bool {
        ["select", "with", "values", "from", "table"].iter().any(|word| self.at_word(0, word))
            || self.at_token(0, &Token::LParen)
    }

    /// A query, checked against the allow-list.
    pub(super) fn query(&mut self) -> Result<Box<ast::Query>> {
        let mut query = self.with_parser(Parser::parse_query)?;
        self.attach_versions(&mut query);
        super::query::check(&query)?;
        Ok(query)
    }

    /// Gives a query that the SQL parser read the moments as of which it reads its tables.
    pub(super) fn attach_versions(&mut self, query: &mut ast::Query) {
        self.versions.attach(query);
    }

    /// Lets the SQL parser read on from here.
    pub(super) fn with_parser<T>(
        &mut self,
        read: impl FnOnce(&mut Parser<'a>) -> Result<T, ParserError>,
    ) -> Result<T> {
        read(&mut self.parser).map_err(parser_error)
    }
}

fn known_catalog(catalog: &str) -> Result<()> {
    if catalog == DEFAULT_CATALOG {
        return Ok(());
    }
    Err(Error::not_found(format!(
        "catalog {catalog:?} does not exist, the one catalog is {DEFAULT_CATALOG:?}"
    )))
}

pub(super) fn writable_schema(schema: &str) -> Result<()> {
    if READ_ONLY_SCHEMAS.contains(&schema) {
        return Err(Error::invalid(format!("schema {schema} is read-only")));
    }
    Ok(())
}

fn place(at: Location) -> String {
    // The end of the text has no place of its own.
    if at.line == 0 {
        "end of statement".to_owned()
    } else {
        format!("line {}, column {}", at.line, at.column)
    }
}

fn folded(word: &Word) -> String {
    match word.quote_style {
        None => word.value.to_ascii_lowercase(),
        Some(_) => word.value.clone(),
    }
}

pub(super) fn folded_ident(ident: &ast::Ident) -> String {
    match ident.quote_style {
        None => ident.value.to_ascii_lowercase(),
        Some(_) => ident.value.clone(),
    }
}

/// The parser's message with its place moved to the front.
pub(super) fn parser_error(error: ParserError) -> Error {
    let message = match error {
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => message,
        ParserError::RecursionLimitExceeded => {
            return Error::invalid("the statement nests too deeply");
        }
    };
    let (message, at) = match message.rsplit_once(" at Line: ") {
        Some((message, at)) => (message, Some(at)),
        None => (message.as_str(), None),
    };
    let message = lower_first(message).replacen("expected: ", "expected ", 1).replacen(
        ", found: EOF",
        ", found the end of the statement",
        1,
    );
    let message = message.replacen(", found: ", ", found ", 1);
    match at.and_then(|at| at.split_once(", Column: ")) {
        Some((line, column)) => Error::invalid(format!("line {line}, column {column}: {message}")),
        None => Error::invalid(message),
    }
}

pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// A name as SQL text that reads back as the same name; quoted only where it must be.
pub fn quote_name(name: &str) -> String {
    use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        && ALL_KEYWORDS.binary_search(&name.to_ascii_uppercase().as_str()).is_err();
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
