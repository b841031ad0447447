//! `synchronous_standby_names`, read as PostgreSQL reads it.
//!
//! The grammar is that of `syncrep_gram.y` and `syncrep_scanner.l`; the meaning is that of
//! `SyncRepGetStandbyPriority` in `syncrep.c` (PostgreSQL manual, "synchronous_standby_names").

use std::iter::Peekable;
use std::str::Chars;

/// Whether a client with this `application_name` counts as a synchronous standby: one of the names
/// is `*` or, in whatever case, the client's.
///
/// PostgreSQL accepts no value that this does not understand; such a one names nobody.
pub fn is_synchronous(synchronous_standby_names: &str, application_name: &str) -> bool {
    standby_names(synchronous_standby_names)
        .unwrap_or_default()
        .iter()
        .any(|name| name == "*" || name.eq_ignore_ascii_case(application_name))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    /// A name, in quotes or not, or `*`.
    Name(String),
    Number(String),
    /// `ANY` or `FIRST`, without quotes.
    Method,
    Comma,
    Open,
    Close,
}

/// The names in the list, whatever stands before it. `None` if this is no such list.
fn standby_names(text: &str) -> Option<Vec<String>> {
    let tokens = tokens(text)?;
    match tokens.as_slice() {
        [] => Some(Vec::new()),
        [
            Token::Method,
            Token::Number(_),
            Token::Open,
            list @ ..,
            Token::Close,
        ]
        | [Token::Number(_), Token::Open, list @ .., Token::Close]
        | list => names(list),
    }
}

/// Names and numbers, which are names too, with commas between.
fn names(list: &[Token]) -> Option<Vec<String>> {
    list.split(|token| *token == Token::Comma)
        .map(|item| match item {
            [Token::Name(name) | Token::Number(name)] => Some(name.clone()),
            _ => None,
        })
        .collect()
}

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut rest = text.chars().peekable();
    let mut tokens = Vec::new();
    while let Some(&next) = rest.peek() {
        tokens.push(match next {
            // `space` of the scanner: not all that Unicode calls white space.
            ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' => {
                rest.next();
                continue;
            }
            '"' => Token::Name(quoted(&mut rest)?),
            '0'..='9' => Token::Number(take_while(&mut rest, |c| c.is_ascii_digit())),
            _ if begins_identifier(next) => identifier(&mut rest),
            _ => {
                rest.next();
                match next {
                    ',' => Token::Comma,
                    '(' => Token::Open,
                    ')' => Token::Close,
                    '*' => Token::Name("*".to_owned()),
                    _ => return None,
                }
            }
        });
    }
    Some(tokens)
}

/// What is between double quotes; two of them stand for one.
fn quoted(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    rest.next();
    let mut name = String::new();
    loop {
        match rest.next()? {
            '"' if rest.next_if_eq(&'"').is_some() => name.push('"'),
            '"' => return Some(name),
            other => name.push(other),
        }
    }
}

fn identifier(rest: &mut Peekable<Chars<'_>>) -> Token {
    let name = take_while(rest, |c| {
        begins_identifier(c) || c.is_ascii_digit() || c == '$'
    });
    match name.eq_ignore_ascii_case("any") || name.eq_ignore_ascii_case("first") {
        true => Token::Method,
        false => Token::Name(name),
    }
}

fn begins_identifier(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

fn take_while(rest: &mut Peekable<Chars<'_>>, accept: impl Fn(char) -> bool) -> String {
    std::iter::from_fn(|| rest.next_if(|&c| accept(c))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(text: &str) -> Option<Vec<String>> {
        standby_names(text)
    }

    fn of(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|&name| name.to_owned()).collect())
    }

    #[test]
    fn every_form_of_the_setting_is_understood() {
        assert_eq!(list(""), of(&[]));
        assert_eq!(list("  \t"), of(&[]));
        assert_eq!(list("s1"), of(&["s1"]));
        assert_eq!(list("s1, s2 ,s3"), of(&["s1", "s2", "s3"]));
        assert_eq!(list("2 (s1, s2)"), of(&["s1", "s2"]));
        assert_eq!(list("FIRST 1 (s1,s2)"), of(&["s1", "s2"]));
        assert_eq!(list("any 2(s1,*)"), of(&["s1", "*"]));
        assert_eq!(list("1, 2"), of(&["1", "2"]));
        assert_eq!(list(r#"ANY 1 ("a b", "c""d", "any", "x,y(")"#), {
            of(&["a b", "c\"d", "any", "x,y("])
        });
        assert_eq!(list("größe, a$1"), of(&["größe", "a$1"]));
    }

    #[test]
    fn what_postgresql_refuses_is_refused() {
        for text in [
            ",",
            "s1,",
            "s1 s2",
            "first (s1)",
            "FIRST 1 s1",
            "2 (s1",
            "2 ()",
            "any",
            "\"open",
            "a-b",
            "s1 (s2)",
        ] {
            assert_eq!(list(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_counts_as_a_whole_and_in_any_case() {
        assert!(is_synchronous("Barman_Receive_WAL", "barman_receive_wal"));
        assert!(is_synchronous(
            "ANY 1 (s1, \"barman_receive_wal\")",
            "barman_receive_wal"
        ));
        assert!(is_synchronous("*", "whoever"));
        assert!(!is_synchronous(
            "barman_receive_wal_2",
            "barman_receive_wal"
        ));
        assert!(!is_synchronous("s1, s2", "s"));
        assert!(!is_synchronous("", "barman_receive_wal"));
        assert!(!is_synchronous("\"s*\"", "barman_receive_wal"));
    }

    proptest! {
        #[test]
        fn any_quoted_name_is_found(name in "\\PC{1,20}", other in "[a-z]{1,8}") {
            let text = format!("FIRST 1 ({other}, \"{}\")", name.replace('"', "\"\""));
            prop_assert!(is_synchronous(&text, &name));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            is_synchronous(&text, "x");
        }
    }
}
