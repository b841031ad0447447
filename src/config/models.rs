//! Models: sets of values that `barman config-switch` puts over a server's own.

use std::io::ErrorKind;
use std::path::Path;

use super::error::{Level, Message};
use super::options::server_option;
use super::resolve::{Resolver, Setting, Settings, Source};
use super::value::{Kind, Value};

/// The file in `backup_directory` that names the server's active model.
const ACTIVE_MODEL_FILE: &str = ".active-model.auto";

impl Resolver<'_> {
    /// Puts the active model of `server`, if it has one, over its settings.
    pub(super) fn apply_active_model(&mut self, server: &mut Settings, models: &[Settings]) {
        let Some(directory) = server.text("backup_directory") else {
            return;
        };
        let file = Path::new(directory).join(ACTIVE_MODEL_FILE);
        let name = match std::fs::read_to_string(&file) {
            Ok(text) => text.trim().to_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            // Which values hold is unknown then, and wrong ones may do harm.
            Err(error) => {
                server.disable(format!(
                    "Cannot read the active model of server '{}' from {}: {error}",
                    server.name,
                    file.display()
                ));
                return;
            }
        };
        if name.is_empty() {
            return;
        }
        match models.iter().find(|model| model.name == name) {
            Some(model) => self.apply(server, model),
            None => server.disable(format!(
                "Model '{name}' is set as the active model for the server '{}' but the model \
                 does not exist.",
                server.name
            )),
        }
    }

    fn apply(&mut self, server: &mut Settings, model: &Settings) {
        let (server_cluster, model_cluster) = (server.value("cluster"), model.value("cluster"));
        if server_cluster != model_cluster {
            self.messages.push(Message::console(
                Level::Error,
                format!(
                    "Model '{}' has 'cluster={}', which is not compatible with 'cluster={}' \
                     from server '{}'",
                    model.name,
                    model_cluster.console(),
                    server_cluster.console(),
                    server.name
                ),
            ));
            return;
        }
        self.debug(format!(
            "Applying model '{}' to server '{}'",
            model.name, server.name
        ));
        for (option, setting) in &model.values {
            if *option != "cluster" {
                self.change(server, model, option, setting);
            }
        }
        server.active_model = Some(model.name.clone());
    }

    fn change(
        &mut self,
        server: &mut Settings,
        model: &Settings,
        option: &'static str,
        setting: &Setting,
    ) {
        let old = server.value(option);
        // The text of an option of base backups is not judged: `on` may well be what was in force.
        let judged = server_option(option).is_some_and(|spec| spec.kind != Kind::BaseBackup);
        if *old != setting.value && judged {
            self.debug(format!(
                "Changing value of option '{option}' for server '{}' from '{}' to '{}' through \
                 the model '{}'",
                server.name,
                old.console(),
                setting.value.console(),
                model.name
            ));
        }
        server.values.insert(option, model_setting(model, setting));
    }

    fn debug(&mut self, text: String) {
        self.messages.push(Message::console(Level::Debug, text));
    }
}

fn model_setting(model: &Settings, setting: &Setting) -> Setting {
    let value: Value = setting.value.clone();
    let source = match setting.source.clone() {
        Source::File { path, line } => Source::Model {
            name: model.name.clone(),
            path,
            line,
        },
        other => other,
    };
    Setting { value, source }
}
