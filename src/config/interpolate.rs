//! `%(name)s` and `%%` in values.
//!
//! Barman expands a value twice: when a file is read, from the same section of the same file and its
//! `[DEFAULT]`; and when an option is asked for, from what is already known about the server. Any `%`
//! that the first pass cannot expand, or leaves behind, stops Barman 3.19. Here it does not: what can be
//! expanded is, and the rest stays as it stands, so a password may contain a `%`. What Barman does
//! accept means the same here.

/// Python's limit of nested references.
const DEPTH_MAX: usize = 10;

/// References followed for one value; nested references multiply, so the depth alone is no bound.
const REFERENCES_MAX: usize = 1000;

/// A value after the first pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// A reference that the file itself could not answer.
    Reference {
        name: String,
        written: String,
    },
}

impl Template {
    /// The first pass: expands `text` by `lookup`, which gives the text of an option as written.
    pub(super) fn expand<'a>(text: &str, lookup: &dyn Fn(&str) -> Option<&'a str>) -> Template {
        let mut pass = Pass {
            lookup,
            pieces: Vec::new(),
            open: Vec::new(),
            followed: 0,
        };
        pass.text(text);
        Template {
            pieces: pass.pieces,
        }
    }

    /// The second pass: the value with what `lookup` knows, and the references that nobody knows.
    pub(super) fn fill(&self, lookup: &dyn Fn(&str) -> Option<String>) -> (String, Vec<String>) {
        let mut out = String::new();
        let mut unknown = Vec::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Reference { name, written } => match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None => {
                        out.push_str(written);
                        unknown.push(written.clone());
                    }
                },
            }
        }
        (out, unknown)
    }
}

struct Pass<'l, 'a> {
    lookup: &'l dyn Fn(&str) -> Option<&'a str>,
    pieces: Vec<Piece>,
    /// The names being expanded, outermost first: a name met again would never end.
    open: Vec<String>,
    followed: usize,
}

impl Pass<'_, '_> {
    fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            self.literal(before);
            if let Some(after) = after.strip_prefix('%') {
                self.literal("%");
                rest = after;
            } else if let Some((name, after)) = reference(after) {
                self.reference(name);
                rest = after;
            } else {
                self.literal("%");
                rest = after;
            }
        }
        self.literal(rest);
    }

    fn reference(&mut self, written: &str) {
        let name = written.to_lowercase();
        let written = format!("%({written})s");
        let lookup = self.lookup;
        let Some(value) = lookup(&name) else {
            self.pieces.push(Piece::Reference { name, written });
            return;
        };
        self.followed += 1;
        let too_deep = value.contains('%') && self.open.len() + 1 >= DEPTH_MAX;
        if too_deep || self.followed > REFERENCES_MAX || self.open.contains(&name) {
            self.literal(&written);
            return;
        }
        self.open.push(name);
        self.text(value);
        self.open.pop();
    }

    fn literal(&mut self, text: &str) {
        if let Some(Piece::Text(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else if !text.is_empty() {
            self.pieces.push(Piece::Text(text.to_owned()));
        }
    }
}

/// Splits `(name)s…`, which followed a `%`, into the name and what follows it.
fn reference(after_percent: &str) -> Option<(&str, &str)> {
    let (name, rest) = after_percent.strip_prefix('(')?.split_once(')')?;
    let rest = rest.strip_prefix('s')?;
    (!name.is_empty()).then_some((name, rest))
}

/// Removes one pair of equal quotes around a value of one line, as Barman does after interpolation.
pub(super) fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
            && !inner.contains('\n')
        {
            return inner;
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str, pairs: &[(&str, &str)]) -> String {
        let lookup = |name: &str| pairs.iter().find(|p| p.0 == name).map(|p| p.1);
        let filled = Template::expand(text, &lookup)
            .fill(&|name| (name == "barman_home").then(|| "/home".to_owned()));
        filled.0
    }

    #[test]
    fn references_nest_and_percent_signs_escape() {
        let pairs = [("a", "1%(b)s"), ("b", "2%%")];
        assert_eq!(expand("x%(A)sx%(b)s", &pairs), "x12%x2%");
        assert_eq!(expand("%%(a)s", &pairs), "%(a)s");
    }

    #[test]
    fn what_the_file_does_not_know_is_asked_later() {
        assert_eq!(expand("%(barman_home)s/w", &[]), "/home/w");
        let template = Template::expand("%(x)s %(barman_home)s", &|_| None);
        let (text, unknown) = template.fill(&|_| None);
        assert_eq!(text, "%(x)s %(barman_home)s");
        assert_eq!(unknown, ["%(x)s", "%(barman_home)s"]);
    }

    #[test]
    fn a_stray_percent_sign_stays() {
        for text in ["50%", "p%w", "%", "%(a", "%()s", "%(a)d", "%(a)", "%s"] {
            assert_eq!(expand(text, &[("a", "1")]), text);
        }
    }

    #[test]
    fn circles_and_explosions_end() {
        assert_eq!(expand("%(a)s", &[("a", "%(b)s"), ("b", "%(a)s")]), "%(a)s");
        assert_eq!(expand("%(a)s", &[("a", "-%(a)s")]), "-%(a)s");
        let wide = "%(b)s".repeat(100);
        let pairs = [
            ("a", wide.as_str()),
            ("b", "%(c)s%(c)s%(c)s%(c)s"),
            ("c", "x%%"),
        ];
        assert!(expand("%(a)s%(a)s%(a)s%(a)s%(a)s%(a)s", &pairs).len() < 10_000);
    }

    #[test]
    fn ten_levels_are_followed() {
        let names: Vec<String> = (0..12).map(|n| format!("n{n}")).collect();
        let texts: Vec<String> = (1..13).map(|n| format!("%(n{n})s")).collect();
        let chain = |length: usize| {
            let mut pairs: Vec<(&str, &str)> = Vec::new();
            for (name, text) in names.iter().zip(&texts).take(length) {
                pairs.push((name, text));
            }
            let last = format!("n{length}");
            pairs.push((&last, "end"));
            expand("%(n0)s", &pairs)
        };
        assert_eq!(chain(9), "end");
        assert!(chain(10).starts_with("%(n"));
    }

    #[test]
    fn one_pair_of_quotes_goes() {
        for (quoted, plain) in [
            ("\"a\"", "a"),
            ("'a'", "a"),
            ("''", ""),
            ("'a'b'", "a'b"),
            ("\"'a'\"", "'a'"),
            ("'a\"", "'a\""),
            ("'", "'"),
            ("'a\nb'", "'a\nb'"),
        ] {
            assert_eq!(unquote(quoted), plain);
        }
    }

    proptest! {
        // The report of a failure has the input; a file of seeds would lie at the top of the tree.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn text_without_references_survives(text in "[^%]*") {
            prop_assert_eq!(expand(&text, &[("a", "1")]), text);
        }

        #[test]
        fn doubled_percent_signs_always_come_back_single(text in "\\PC*") {
            prop_assert_eq!(expand(&text.replace('%', "%%"), &[("a", "1")]), text);
        }
    }
}
