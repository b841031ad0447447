//! The ini dialect of `barman.conf`: what Python's `ConfigParser(strict=False)` reads, with the line
//! of every value.
//!
//! The facts come from CPython 3.11's `configparser` and from running it; the comparison lives in
//! `tests/suite/config.rs`. Interpolation is not done here, see `interpolate`.

use std::path::Path;

use super::error::ConfigError;

/// One configuration file, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IniFile {
    /// The options of `[DEFAULT]`: every section of the same file has them too.
    pub defaults: IniSection,
    /// The other sections in the order of their first appearance.
    pub sections: Vec<IniSection>,
}

/// A section; one that is opened several times is one section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IniSection {
    /// What stands between the brackets, unchanged.
    pub name: String,
    /// The options in the order of their first appearance, the last value of each.
    pub options: Vec<IniOption>,
}

/// An option as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IniOption {
    /// Lower-cased name.
    pub name: String,
    /// The value with continuation lines joined by `\n`; quotes and `%` still as written.
    pub value: String,
    /// The line of the name, from 1.
    pub line: usize,
}

impl IniSection {
    /// Sets `name`, keeping the position of an earlier value.
    pub(super) fn set(&mut self, name: &str, value: &str, line: usize) {
        let option = IniOption {
            name: name.to_owned(),
            value: value.to_owned(),
            line,
        };
        match self.options.iter_mut().find(|other| other.name == name) {
            Some(other) => *other = option,
            None => self.options.push(option),
        }
    }

    /// The option of this (lower-case) name.
    pub fn get(&self, name: &str) -> Option<&IniOption> {
        self.options.iter().find(|option| option.name == name)
    }
}

/// Reads a file's bytes as text.
///
/// # Errors
///
/// When the bytes start with a byte order mark or are not UTF-8: Barman fails on both as well.
pub(super) fn decode<'a>(bytes: &'a [u8], path: &Path) -> Result<&'a str, ConfigError> {
    if bytes.starts_with(b"\xef\xbb\xbf") {
        return Err(
            ConfigError::new("The configuration file starts with a byte order mark")
                .file(path)
                .line(1)
                .hint("Save the file as UTF-8 without BOM."),
        );
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        ConfigError::new("The configuration file is not UTF-8 text")
            .file(path)
            .line(1 + good.iter().filter(|byte| **byte == b'\n').count())
            .hint("Convert the file to UTF-8, for example with iconv.")
    })
}

/// Parses the text of a file; `path` is for the errors.
///
/// # Errors
///
/// At the first line that is neither a section, an option, a continuation nor a comment, and at an
/// option before the first section.
pub fn parse(text: &str, path: &Path) -> Result<IniFile, ConfigError> {
    let mut reader = Reader {
        path,
        file: IniFile::default(),
        section: None,
        option: None,
        indent: 0,
    };
    // Python reads with universal newlines: a lone carriage return ends a line as well.
    let unix = text.replace("\r\n", "\n").replace('\r', "\n");
    for (index, line) in unix.split('\n').enumerate() {
        reader.line(line, index + 1)?;
    }
    let mut file = reader.file;
    file.defaults.name = DEFAULT_SECTION.to_owned();
    for section in file.sections.iter_mut().chain([&mut file.defaults]) {
        for option in &mut section.options {
            let kept = option.value.trim_end_matches(is_python_space).len();
            option.value.truncate(kept);
        }
    }
    Ok(file)
}

const DEFAULT_SECTION: &str = "DEFAULT";

/// The section that lines belong to: `[DEFAULT]`, or a position in `IniFile::sections`.
#[derive(Clone, Copy)]
enum Current {
    Defaults,
    Section(usize),
}

struct Reader<'a> {
    path: &'a Path,
    file: IniFile,
    section: Option<Current>,
    /// The name of the option that a deeper line continues.
    option: Option<String>,
    /// The indent of the last line that was not a continuation, in characters.
    indent: usize,
}

impl Reader<'_> {
    fn line(&mut self, line: &str, number: usize) -> Result<(), ConfigError> {
        let value = line.trim_matches(is_python_space);
        if value.starts_with(['#', ';']) {
            // A comment inside a value leaves no trace in it, unlike an empty line.
            return Ok(());
        }
        if value.is_empty() {
            self.append("");
            return Ok(());
        }
        let indent = line.chars().take_while(|c| is_python_space(*c)).count();
        if self.option.is_some() && indent > self.indent {
            self.append(value);
            return Ok(());
        }
        self.indent = indent;
        if let Some(name) = section_header(value) {
            self.open_section(name);
            return Ok(());
        }
        self.open_option(value, number)
    }

    fn current(&mut self) -> Option<&mut IniSection> {
        match self.section? {
            Current::Defaults => Some(&mut self.file.defaults),
            Current::Section(index) => self.file.sections.get_mut(index),
        }
    }

    fn append(&mut self, text: &str) {
        let Some(name) = self.option.clone() else {
            return;
        };
        if let Some(section) = self.current()
            && let Some(option) = section.options.iter_mut().find(|o| o.name == name)
        {
            option.value.push('\n');
            option.value.push_str(text);
        }
    }

    fn open_section(&mut self, name: &str) {
        // A section never starts with a continuation line, however deep that line is.
        self.option = None;
        if name == DEFAULT_SECTION {
            self.section = Some(Current::Defaults);
            return;
        }
        let known = self.file.sections.iter().position(|s| s.name == name);
        let index = known.unwrap_or_else(|| {
            self.file.sections.push(IniSection {
                name: name.to_owned(),
                options: Vec::new(),
            });
            self.file.sections.len() - 1
        });
        self.section = Some(Current::Section(index));
    }

    fn open_option(&mut self, text: &str, number: usize) -> Result<(), ConfigError> {
        let path = self.path;
        let Some(section) = self.current() else {
            return Err(ConfigError::new(format!(
                "The line {text:?} stands before the first section"
            ))
            .file(path)
            .line(number)
            .hint("Start the file with a section such as [barman]."));
        };
        let pair = text.split_once(['=', ':']);
        let (name, value) = match pair {
            Some((name, value)) if !name.is_empty() => (name, value),
            _ => {
                return Err(ConfigError::new(format!(
                    "The line {text:?} is neither a section nor an option"
                ))
                .file(path)
                .line(number)
                .hint(
                    "Write it as `option = value`, start it with # to make it a comment, \
                     or indent it to continue the value above.",
                ));
            }
        };
        let name = name.trim_end_matches(is_python_space).to_lowercase();
        section.set(&name, value.trim_start_matches(is_python_space), number);
        self.option = Some(name);
        Ok(())
    }
}

/// The name in a section header. Text behind the last bracket is ignored.
fn section_header(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('[')?;
    let name = inner.get(..inner.rfind(']')?)?;
    (!name.is_empty()).then_some(name)
}

/// What Python's `str.isspace` calls a space: Rust's whitespace and four control characters.
pub(super) fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<IniFile, ConfigError> {
        parse(text, Path::new("test.conf"))
    }

    fn value(text: &str, section: &str, option: &str) -> Option<String> {
        let file = read(text).ok()?;
        let section = file.sections.iter().find(|s| s.name == section)?;
        section.get(option).map(|o| o.value.clone())
    }

    #[test]
    fn the_first_delimiter_wins() {
        assert_eq!(value("[a]\nk = b:c", "a", "k").as_deref(), Some("b:c"));
        assert_eq!(value("[a]\nk : b=c", "a", "k").as_deref(), Some("b=c"));
        assert_eq!(value("[a]\nk=", "a", "k").as_deref(), Some(""));
    }

    #[test]
    fn comments_are_whole_lines_only() {
        let text = "[a]\n  ; no\n# no\nk = v ; yes # yes";
        assert_eq!(value(text, "a", "k").as_deref(), Some("v ; yes # yes"));
    }

    #[test]
    fn deeper_lines_continue_a_value_and_comments_vanish_from_it() {
        let text = "[a]\nk = 1\n  2\n # x\n\n   3\n\nl = 4\n";
        assert_eq!(value(text, "a", "k").as_deref(), Some("1\n2\n\n3"));
        assert_eq!(value(text, "a", "l").as_deref(), Some("4"));
    }

    #[test]
    fn an_indented_option_after_a_header_is_an_option() {
        assert_eq!(
            value("[a]\n   k = 1\n   l = 2", "a", "l").as_deref(),
            Some("2")
        );
    }

    #[test]
    fn repeated_names_merge_and_the_last_value_wins() -> Result<(), ConfigError> {
        let file = read("[a]\nK=1\nl=2\n[b]\n[a]\nk=3")?;
        let names: Vec<_> = file.sections.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        let a: Vec<_> = file
            .sections
            .iter()
            .take(1)
            .flat_map(|s| &s.options)
            .collect();
        let a: Vec<_> = a
            .iter()
            .map(|o| (o.name.as_str(), o.value.as_str(), o.line))
            .collect();
        assert_eq!(a, [("k", "3", 6), ("l", "2", 3)]);
        Ok(())
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, line, word) in [
            ("[a]\nk=1\nnonsense\n", 3, "neither"),
            ("[a]\n= v\n", 2, "neither"),
            ("\nk = v\n", 2, "before"),
        ] {
            let error = read(text)
                .map(|_| ())
                .map_err(|e| (e.line_number(), e.to_string()));
            let Err((number, shown)) = error else {
                panic!("{text:?} was accepted");
            };
            assert_eq!(number, Some(line));
            assert!(
                shown.contains(word) && shown.contains("test.conf"),
                "{shown}"
            );
        }
    }

    #[test]
    fn a_mark_or_foreign_bytes_are_refused_with_their_line() {
        let path = Path::new("test.conf");
        let mark = decode(b"\xef\xbb\xbf[a]", path).map_err(|e| e.line_number());
        assert_eq!(mark, Err(Some(1)));
        let latin = decode(b"[a]\nk=1\nd=\xe9\n", path).map_err(|e| e.line_number());
        assert_eq!(latin, Err(Some(3)));
    }

    proptest! {
        // The report of a failure has the input; a file of seeds would lie at the top of the tree.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused_without_panic(text in "\\PC*|[\\[\\]=:#; \t\n\rab%]*") {
            let _ = read(&text);
        }

        #[test]
        fn what_is_written_is_read_back(
            pairs in proptest::collection::btree_map("[a-z_]{1,8}", "[!-~]([ -~]*[!-~])?", 1..6)
        ) {
            let mut text = "[s]\n".to_owned();
            for (name, value) in &pairs {
                text.push_str(&format!("{name} = {value}\n"));
            }
            for (index, (name, expected)) in pairs.iter().enumerate() {
                let file = read(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
                let found = file.sections.iter().find_map(|s| s.get(name));
                let found = found.map(|o| (o.value.as_str(), o.line));
                prop_assert_eq!(found, Some((expected.as_str(), index + 2)));
            }
        }
    }
}
