//! Loading where walarch goes beyond Barman: TOML, own options, leniency, hints and the examples.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use walarch::config::{
    Config, ConfigError, ConfigFile, Level, ServerConfig, Source, WalsDirectory, reference_markdown,
};

/// Loads a configuration whose main file is `name`; `@` stands for the directory.
fn load_files(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Config, ConfigError>) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let text = text.replace('@', dir.path().to_str().unwrap());
        fs::write(dir.path().join(name), text).unwrap();
    }
    let main = dir.path().join(files[0].0);
    let config = ConfigFile::open(&main).and_then(ConfigFile::load);
    (dir, config)
}

fn load(text: &str) -> Config {
    load_files(&[("barman.conf", text)]).1.unwrap()
}

fn value<'a>(server: &'a ServerConfig, option: &str) -> &'a str {
    let found = server.options.iter().find(|o| o.name == option);
    &found.unwrap().value
}

#[test]
fn toml_and_ini_make_the_same_servers() {
    let ini = "[barman]\nbarman_home = @\ncompression = gzip\n[main]\nconninfo = host=a\n\
               archiver = on\narchiver_batch_size = 5\ndescription = \"%(path_prefix)s\"\n\
               path_prefix = /p\nencryption_key_id = None\n[m]\nmodel = on\ncluster = main\n";
    let toml = "[barman]\nbarman_home = \"@\"\ncompression = 'gzip'\n[main]\n\
                conninfo = \"host=a\"\narchiver = true\narchiver_batch_size = 5\n\
                description = '%(path_prefix)s'\npath_prefix = '/p'\nencryption_key_id = 'None'\n\
                [m]\nmodel = true\ncluster = 'main'\n[walarch]\njobs = 3\n\
                [server.main]\nvalidate_wal = false\n";
    let own = "[walarch]\njobs = 3\n[server.main]\nvalidate_wal = 'off'\n";
    let (ini_dir, ini) = load_files(&[("barman.conf", ini), ("walarch.toml", own)]);
    let (toml_dir, toml) = load_files(&[("barman.toml", toml)]);
    // Paths apart, everything but the name of the file must agree, to the line.
    let plain = |config: Config, dir: &Path| {
        assert_eq!(config.messages, []);
        let text = format!("{:#?}", (&config.global, &config.servers, &config.models));
        text.replace(dir.to_str().unwrap(), "@")
            .replace("barman.toml", "barman.conf")
    };
    assert_eq!(
        plain(ini.unwrap(), ini_dir.path()),
        plain(toml.unwrap(), toml_dir.path())
    );
}

#[test]
fn sources_name_file_and_line() {
    let (dir, config) = load_files(&[
        (
            "barman.conf",
            "[barman]\nbarman_home = @\ncompression = gzip\n[main]\n\nslot_name = s\n\
             wal_conninfo = host=w\n[m]\nmodel = on\ncluster = main\nslot_name = t\n",
        ),
        (".barman.auto.conf", "[main]\npath_prefix = /p\n"),
    ]);
    let mut config = config.unwrap();
    let main = dir.path().join("barman.conf");
    let auto = dir.path().join(".barman.auto.conf");
    let source = |server: &ServerConfig, name: &str| {
        server
            .options
            .iter()
            .find(|o| o.name == name)
            .unwrap()
            .source
            .clone()
    };
    let server = config.server_mut("main").unwrap();
    let file = |path: &Path, line| Source::File {
        path: path.to_path_buf(),
        line,
    };
    assert_eq!(source(server, "compression"), file(&main, 3));
    assert_eq!(source(server, "slot_name"), file(&main, 6));
    assert_eq!(source(server, "path_prefix"), file(&auto, 2));
    assert_eq!(source(server, "encryption"), Source::Default);
    server.use_wal_conninfo().unwrap();
    assert_eq!(
        (value(server, "conninfo"), source(server, "conninfo")),
        ("host=w", Source::Forced)
    );
    assert_eq!(server.prepare().len(), 2);
    assert_eq!(
        (value(server, "archiver"), source(server, "archiver")),
        ("True", Source::Forced)
    );

    fs::create_dir(dir.path().join("main")).unwrap();
    fs::write(dir.path().join("main/.active-model.auto"), "m").unwrap();
    let config = ConfigFile::open(&main).and_then(ConfigFile::load).unwrap();
    let expected = Source::Model {
        name: "m".to_owned(),
        path: main,
        line: 11,
    };
    assert_eq!(
        source(config.server("main").unwrap(), "slot_name"),
        expected
    );
    // Equal in both by condition, so not the model's doing.
    assert_eq!(
        source(config.server("main").unwrap(), "cluster"),
        Source::Default
    );
}

#[test]
fn percent_signs_that_stop_barman_do_not_stop_walarch() {
    let config = load(
        "[barman]\nbarman_home = /h\nlog_format = %(asctime)s %(message)s\n[main]\n\
         conninfo = host=a password=50%off\nerrors_directory = %(barman_home)s/e/%(name)s\n\
         incoming_wals_directory = %(backup_directory)s/in\npath_prefix = 100%%\n\
         description = %(nowhere)s\n",
    );
    assert_eq!(config.global.log_format, "%(asctime)s %(message)s");
    let server = config.server("main").unwrap();
    assert_eq!(server.conninfo.as_deref(), Some("host=a password=50%off"));
    assert_eq!(server.errors_directory, Path::new("/h/e/main"));
    assert_eq!(server.incoming_wals_directory, Path::new("/h/main/in"));
    assert_eq!(server.path_prefix.as_deref(), Some("100%"));
    assert_eq!(server.description.as_deref(), Some("%(nowhere)s"));
    let [message] = config.messages.as_slice() else {
        panic!("{:?}", config.messages)
    };
    assert!(message.console && message.level == Level::Warning);
    assert!(
        message
            .text
            .starts_with("%(nowhere)s in option \"description\" in [main] section")
    );
}

#[test]
fn no_compression_may_be_said_in_any_case() {
    let config = load(
        "[barman]\nbarman_home = /h\ncompression = gzip\n[a]\ncompression = none\n\
         [b]\ncompression = NONE\n[c]\ncompression = None\n[d]\n",
    );
    assert_eq!(config.messages, []);
    let shown: Vec<&str> = config
        .servers
        .iter()
        .map(|s| value(s, "compression"))
        .collect();
    assert_eq!(shown, ["None", "None", "None", "gzip"]);
}

#[test]
fn a_bad_magic_disables_only_where_it_is_needed() {
    let config = load(
        "[barman]\nbarman_home = /h\ncustom_compression_magic = xyz\n[a]\n\
         compression = custom\n[b]\ncompression = gzip\n[c]\ncompression = custom\n\
         custom_compression_magic = 0x1F8B\n",
    );
    let [a, b, c] = config.servers.as_slice() else {
        panic!()
    };
    assert!(a.disabled && a.messages[0].contains("custom_compression_magic 'xyz'"));
    assert_eq!(value(a, "disabled"), "True");
    assert!(!b.disabled && config.messages.len() == 1);
    assert_eq!(
        c.custom_compression_magic.as_deref(),
        Some([0x1f, 0x8b].as_slice())
    );
}

#[test]
fn fatal_errors_name_their_place() {
    let barman = "[barman]\nbarman_home = @\n";
    for (name, tail, extra, line, word) in [
        (
            "barman.conf",
            "[main]\nwals_directory =\n",
            None,
            Some(4),
            "wals_directory",
        ),
        ("barman.conf", "[main]\nwhat\n", None, Some(4), "HINT"),
        (
            "barman.conf",
            "lock_directory_cleanup = maybe\n",
            None,
            Some(3),
            "boolean",
        ),
        (
            "barman.conf",
            "[all]\nactive = on\n",
            None,
            Some(4),
            "reserved",
        ),
        (
            "barman.conf",
            "[m]\nmodel = on\n",
            None,
            Some(4),
            "\"cluster\" is required",
        ),
        (
            "barman.conf",
            "",
            Some(("walarch.toml", "[walarch]\nx = 1\n")),
            Some(2),
            "unknown field",
        ),
        (
            "barman.conf",
            "",
            Some((".barman.auto.conf", "[barman]\nx = 1\n")),
            Some(2),
            "FATAL",
        ),
    ] {
        let text = format!("{barman}{tail}");
        let mut files = vec![(name, text.as_str())];
        files.extend(extra);
        let (dir, config) = load_files(&files);
        let error = config.map(|_| ()).unwrap_err();
        assert_eq!(error.line_number(), line, "{error}");
        let file = dir.path().join(extra.map_or(name, |(name, _)| name));
        assert_eq!(error.path(), Some(file.as_path()), "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let missing = ConfigFile::find(Some(Path::new("/nonexistent.conf"))).map(|_| ());
    let text = "Configuration file '/nonexistent.conf' does not exist";
    assert_eq!(missing.unwrap_err().to_string(), text);
}

#[test]
fn an_unreadable_active_model_disables_the_server() {
    let (dir, config) = load_files(&[("barman.conf", "[barman]\nbarman_home = @\n[main]\n")]);
    assert!(!config.unwrap().servers[0].disabled);
    fs::create_dir_all(dir.path().join("main/.active-model.auto")).unwrap();
    let config = ConfigFile::open(&dir.path().join("barman.conf")).and_then(ConfigFile::load);
    let server = config.unwrap().servers.remove(0);
    assert!(server.disabled && server.messages[0].starts_with("Cannot read the active model"));
}

#[test]
fn own_options_of_unknown_servers_are_worth_a_warning() {
    let (_dir, config) = load_files(&[
        ("barman.conf", "[barman]\nbarman_home = @\n[main]\n"),
        ("walarch.toml", "[server.mian]\njobs = 1\n"),
    ]);
    let messages = config.unwrap().messages;
    assert!(messages.len() == 1 && messages[0].text.contains("[server.mian]"));
}

#[test]
fn a_server_can_be_made_from_its_defaults() {
    let server = ServerConfig::with_defaults("main", Path::new("/h"));
    assert!(server.active && !server.disabled && server.compression.is_none());
    assert_eq!(
        server.wals_directory,
        WalsDirectory::Local("/h/main/wals".into())
    );
    assert_eq!(server.xlogdb_directory, Path::new("/h/main/wals"));
    assert_eq!(server.lock_directory, Path::new("/h"));
    assert_eq!(server.check_timeout, Some(Duration::from_secs(30)));
}

#[test]
fn the_examples_load_without_a_word() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("barman.conf.example")).unwrap();
    let own = fs::read_to_string(root.join("examples/walarch.toml")).unwrap();
    // Once as it is, once with everything that is commented out.
    let everything: String = example
        .lines()
        .map(|line| uncommented(line) + "\n")
        .collect();
    for (text, servers) in [(example, 1), (everything, 3)] {
        let directory = text
            .lines()
            .filter(|line| !line.starts_with("configuration_files_dir"));
        let text: String = directory.map(|line| line.to_owned() + "\n").collect();
        let (_dir, config) = load_files(&[("barman.conf", &text), ("walarch.toml", &own)]);
        let mut config = config.unwrap();
        assert_eq!(config.messages, []);
        assert_eq!(
            (config.servers.len(), config.global_errors.len()),
            (servers, 0)
        );
        for server in &mut config.servers {
            assert_eq!(server.prepare(), []);
            assert_eq!(server.messages, [""; 0]);
        }
        let main = &config.server("main").unwrap().own;
        assert_eq!(main.jobs, NonZeroUsize::new(2));
        assert_eq!(main.hook_timeout, Some(Duration::from_secs(300)));
    }
    for option in ["jobs", "validate_wal", "hook_timeout_s"] {
        assert!(own.contains(&format!("\n{option} = ")), "{option}");
        assert!(
            reference_markdown().contains(&format!("| `{option}` |")),
            "{option}"
        );
    }
}

/// The line without its comment sign, when what follows is an option or a section.
fn uncommented(line: &str) -> String {
    let inner = line
        .strip_prefix(';')
        .filter(|inner| !inner.starts_with(' '));
    inner.unwrap_or(line).to_owned()
}
