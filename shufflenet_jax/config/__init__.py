"""Configs: their fields, defaults and ranges; config files; and the flags that override fields.

`fields` and `arguments` make a config, `settings` checks and compares configs, `config_file` and `shipped` load a file.
"""
