//! The ini dialect against Python's own `configparser`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use walarch::config::{IniSection, parse_ini};

/// Reads a JSON list of file texts, writes for each its raw options, or null when Python refuses it.
const DUMP: &str = r#"
import configparser, io, json, sys

def pairs(options):
    return [[name, value] for name, value in options.items()]

def dump(text):
    parser = configparser.ConfigParser(strict=False)
    try:
        # newline=None: universal newlines, as open() has them.
        parser.read_file(io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8", newline=None))
    except configparser.Error:
        return None
    sections = [[name, pairs(parser._sections[name])] for name in parser.sections()]
    return [pairs(parser.defaults()), sections]

json.dump([dump(text) for text in json.load(sys.stdin)], sys.stdout)
"#;

/// Files with one peculiarity each.
const CORPUS: &[&str] = &[
    "",
    "\n\n# only\n; comments\n",
    "[a]\nk = v\n",
    "[a]\nk : v = w\nl = v : w\nm=:\nn:=\n",
    "[a]\nKey With Blanks = 1\nKEY = 2\nkey = 3\n",
    "[a]\nk = v ; no comment\nl = v # no comment\n  # a comment\n ; another\n",
    "[a]\nk = 1\n  2\n\n  3\n# gone\n    4\n\n\nl = 5\n",
    "[a]\n    k = 1\n    l = 2\n      3\n  m = 4\n",
    "[a]\nk =\n  1\n\t2\nl =\n",
    "[a]\nk = 1\n\n[b]\n   l = 2\n  m = 3\n n = 4\n",
    "[a]\nk = 1\n[b]\nk = 2\n[a]\nl = 3\nk = 4\n",
    "[DEFAULT]\nd = 1\n[a]\nk = 2\n[DEFAULT]\ne = 3\nd = 4\n",
    "[a b]\nk = 1\n[ a ]\nk = 2\n[a]b]\nk = 3\n[a] tail\nl = 4\n",
    "[]\nk = 1\n",
    "[a]\n[]=1\n",
    "[a]\n[b\n",
    "[a]\n[b = 1\n",
    "[a]\nno delimiter\n",
    "[a]\n= no name\n",
    "k = before any section\n",
    "[a]\r\nk = 1\r\n  2\r\nl = 3\r",
    "[a]\rk = 1\rl = 2",
    "[a]\nk = \u{a0}1\u{a0}\n\u{2003}2\nl\u{a0}= 3\n",
    "[a]\nk = \u{1c}1\u{1f}\n\u{1d}2\n",
    "[a]\nÄRGER = ß\nΣΑΣ = 1\n",
    "[a]\nk = 100%\nl = %(k)s %%\n",
    "[a]\nk = 'quoted'\nl = \"\"\n",
    "[a]\nk = 1\n   [b]\n[c]\n   k = 1\n",
    "\u{feff}[a]\nk = 1\n",
    "[a]\nk\\ = 1\n\\: 2\n",
    "[a]\nk = 1\u{b}2\u{c}3\u{85}4\u{2028}5\n",
];

fn as_python_shows(text: &str) -> Value {
    let pairs = |section: &IniSection| -> Vec<Value> {
        let options = section.options.iter();
        options
            .map(|option| json!([option.name, option.value]))
            .collect()
    };
    match parse_ini(text, Path::new("test.conf")) {
        Err(_) => Value::Null,
        Ok(file) => {
            let sections = file.sections.iter();
            let sections: Vec<Value> = sections.map(|s| json!([s.name, pairs(s)])).collect();
            json!([pairs(&file.defaults), sections])
        }
    }
}

fn compare(texts: &[String]) {
    let mut child = Command::new("python3")
        .args(["-c", DUMP])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let input = serde_json::to_vec(texts).unwrap();
    child.stdin.take().unwrap().write_all(&input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let expected: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(expected.len(), texts.len());
    for (text, expected) in texts.iter().zip(expected) {
        assert_eq!(as_python_shows(text), expected, "{text:?}");
    }
}

#[test]
fn the_corpus_reads_as_in_python() {
    let texts: Vec<String> = CORPUS.iter().map(|text| (*text).to_owned()).collect();
    compare(&texts);
}

#[test]
fn random_files_read_as_in_python() {
    let line = prop_oneof![
        4 => "( |\t){0,4}[a-cA-C]{1,2} ?[=:] ?[a-z;#=:%]{0,4} ?",
        2 => "( |\t){0,4}\\[(a|b|c|DEFAULT|a b)\\]( x)?",
        2 => "( |\t){1,5}[a-z\\[\\]]{1,4}",
        2 => "( |\t){0,4}[#;][a-z =]{0,3}",
        2 => "( |\t){0,3}",
        1 => "[\\[\\]=: \ta-c\u{a0}\u{1c}]{0,6}",
    ];
    // Most files start with a section: without one nearly all are refused at their first line.
    let file = (
        any::<u8>(),
        proptest::collection::vec((line, "\n|\n|\n|\r\n|\r"), 0..12),
    );
    let file = file.prop_map(|(start, lines)| {
        let head = if start < 230 { "[a]\n" } else { "" };
        let lines = lines.into_iter().map(|(line, end)| line + &end);
        head.to_owned() + &lines.collect::<String>()
    });
    let mut runner = TestRunner::default();
    let mut texts = Vec::new();
    for _ in 0..3000 {
        texts.push(file.new_tree(&mut runner).unwrap().current());
    }
    compare(&texts);
    let read = texts
        .iter()
        .filter(|text| !as_python_shows(text).is_null())
        .count();
    assert!(
        read > 300,
        "only {read} of 3000 files were readable: the generator is too wild"
    );
}
