"""The same verbs from a shell: one file per noun, loaded when it is called.

`main` starts without click, numpy or torch (test_help_loads_nothing_heavy); `app` is the click
group that loads `ownweights.cli.<noun>` on demand; `commands` is the table of nouns. Data go to
stdout, talk goes to stderr, and exit codes are those of `core.errors`.
"""
