"""Shows what the real Barman makes of configuration files: one JSON request in, one answer out."""

import json
import logging
import os
import sys

from types import SimpleNamespace

from barman import config, output, server

# What base backups need is not the subject, nor are the clients of object stores.
server.BackupManager = lambda owner: SimpleNamespace(server=owner, config=owner.config)
server.Server._init_wal_storage = lambda owner: None
server.Server.get_wal_cloud_interface = lambda owner: None

said = []
logged = []


class Recorder(logging.Handler):
    def emit(self, record):
        logged.append([record.levelname.lower(), record.getMessage()])


def record(level):
    def put(message, *args, **kwargs):
        said.append([level, message % args if args else message])

    return put


for level in ("debug", "info", "warning", "error"):
    setattr(output, level, record(level))
logging.getLogger("barman.config").addHandler(Recorder())
logging.getLogger("barman.config").setLevel(logging.DEBUG)
logging.getLogger("barman.config").propagate = False
logging.getLogger("barman").addHandler(logging.NullHandler())


def take(recorded):
    taken = list(recorded)
    recorded.clear()
    return taken


def as_json(value):
    if isinstance(value, (int, str, bool, list, dict, type(None))):
        # The far end holds 64 bits.
        if isinstance(value, int) and not isinstance(value, bool):
            return max(-(2**63), min(2**63 - 1, value))
        return value
    return str(value)


def open_config(path):
    loaded = config.Config(path)
    loaded.load_configuration_files_directory()
    auto = "%s/.barman.auto.conf" % loaded.get("barman", "barman_home")
    if os.path.exists(auto):
        loaded.load_config_file(auto)
    loaded.validate_global_config()
    loaded.server_names()
    return loaded


def dump_server(conf):
    options = {}
    for name, entry in conf.to_json(with_source=True).items():
        if name != "name":
            value = as_json(entry["value"])
            options[name] = [str(value), value, entry["source"]]
    answer = {
        "name": conf.name,
        "options": options,
        "reasons": list(conf.msg_list),
        "active_model": conf.active_model.name if conf.active_model else None,
    }
    take(said)
    answer["wal_conninfo"] = conf.get_wal_conninfo()
    answer["overrides"] = [text for _, text in take(said)]
    # libpq would refuse a string that is none; the strings are not the subject.
    for name in ("conninfo", "streaming_conninfo", "primary_conninfo"):
        if getattr(conf, name) is not None:
            setattr(conf, name, "host=db" if name != "primary_conninfo" else None)
    made = server.Server(conf)
    answer["prepared"] = {
        "archiver": conf.archiver,
        "disabled": conf.disabled,
        "passive": made.passive_node,
        "cloud": made.use_wal_cloud_storage,
        "xlogdb_directory": made.xlogdb_directory,
        "reasons": list(conf.msg_list),
        "said": take(said),
    }
    return answer


def dump(path):
    take(said), take(logged)
    answer = {
        "fatal": None, "said": [], "logged": [], "global_errors": [], "models": [], "servers": [],
    }
    try:
        loaded = open_config(path)
    except Exception:
        print("Barman fails on", path, file=sys.stderr)
        raise
    except SystemExit as stop:
        sentences = [text for level, text in take(said) if level == "error"]
        answer["fatal"] = "\n".join(sentences + [str(stop)])
        return answer
    answer["said"], answer["logged"] = take(said), take(logged)
    answer["global_errors"] = loaded.servers_msg_list
    answer["models"] = list(loaded.model_names())
    answer["servers"] = [dump_server(conf) for conf in loaded.servers()]
    return answer


def table():
    known, model = config.ServerConfig, config.ModelConfig
    return [
        {
            "name": name,
            "default": known.DEFAULTS.get(name),
            "parser": getattr(known.PARSERS.get(name), "__name__", None),
            "inherited": name in known.BARMAN_KEYS,
            "fixed": name in known.FIXED,
            "model": name in model.KEYS,
        }
        for name in known.KEYS
    ]


request = json.load(sys.stdin)
json.dump(table() if "table" in request else [dump(path) for path in request["load"]], sys.stdout)
