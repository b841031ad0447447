//! All configuration files merged, as Barman merges them: file by file, the last value wins.

use std::path::Path;

use super::error::Place;
use super::ini::IniFile;
use super::interpolate::{Template, unquote};

/// References from section to section that are followed for one value.
const DEPTH_MAX: usize = 10;

/// The merged sections, in the order of their first appearance.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections {
    list: Vec<Section>,
}

/// A merged section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) name: String,
    /// In the order of their first appearance.
    pub(super) options: Vec<RawOption>,
}

/// An option before its kind is known.
#[derive(Clone, Debug)]
pub(super) struct RawOption {
    pub(super) name: String,
    pub(super) template: Template,
    pub(super) place: Place,
}

/// The text of an option, with everything expanded.
pub(super) struct Text {
    pub(super) value: String,
    /// References to nothing, as written.
    pub(super) unknown: Vec<String>,
    pub(super) place: Place,
}

/// Answers a reference that stands for something computed, such as `%(barman_home)s`.
pub(super) type Known<'a> = &'a dyn Fn(&str) -> Option<String>;

impl Section {
    pub(super) fn get(&self, name: &str) -> Option<&RawOption> {
        self.options.iter().find(|option| option.name == name)
    }
}

impl Sections {
    /// Merges a file into the sections; its `[DEFAULT]` counts for its own sections only.
    pub(super) fn merge(&mut self, file: &IniFile, path: &Path) {
        for section in &file.sections {
            let written = |name: &str| {
                let option = section.get(name).or_else(|| file.defaults.get(name));
                option.map(|option| option.value.as_str())
            };
            let inherited = file
                .defaults
                .options
                .iter()
                .filter(|option| section.get(&option.name).is_none());
            let position = self.position(&section.name);
            let Some(target) = self.list.get_mut(position) else {
                continue;
            };
            for option in section.options.iter().chain(inherited) {
                let merged = RawOption {
                    name: option.name.clone(),
                    template: Template::expand(&option.value, &written),
                    place: Place {
                        path: path.to_path_buf(),
                        line: option.line,
                    },
                };
                match target.options.iter_mut().find(|o| o.name == option.name) {
                    Some(earlier) => *earlier = merged,
                    None => target.options.push(merged),
                }
            }
        }
    }

    /// The position of a section, which is made where it does not exist.
    fn position(&mut self, name: &str) -> usize {
        let known = self.list.iter().position(|section| section.name == name);
        known.unwrap_or_else(|| {
            self.list.push(Section {
                name: name.to_owned(),
                options: Vec::new(),
            });
            self.list.len() - 1
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Section> {
        self.list.iter()
    }

    pub(super) fn section(&self, name: &str) -> Option<&Section> {
        self.list.iter().find(|section| section.name == name)
    }

    /// The text of an option with `known` and then the section itself answering references.
    pub(super) fn text(&self, section: &str, option: &str, known: Known<'_>) -> Option<Text> {
        let section = self.section(section)?;
        let raw = section.get(option)?;
        let (value, unknown) = fill(section, raw, known, 1);
        Some(Text {
            value,
            unknown,
            place: raw.place.clone(),
        })
    }

    /// An option's value as Barman's `get` gives it: `None` spelled out becomes `none`, and then one
    /// pair of quotes goes.
    pub(super) fn get(
        &self,
        section: &str,
        option: &str,
        known: Known<'_>,
        none: Option<&str>,
    ) -> Option<Text> {
        let mut text = self.text(section, option, known)?;
        if text.value == "None" {
            text.value = none?.to_owned();
        } else {
            text.value = unquote(&text.value).to_owned();
        }
        Some(text)
    }
}

fn fill(
    section: &Section,
    raw: &RawOption,
    known: Known<'_>,
    depth: usize,
) -> (String, Vec<String>) {
    raw.template.fill(&|name| {
        if let Some(value) = known(name) {
            return Some(value);
        }
        // Another file of the same section may have it. Barman would refuse this.
        let other = section.get(name).filter(|_| depth < DEPTH_MAX)?;
        Some(fill(section, other, known, depth + 1).0)
    })
}
