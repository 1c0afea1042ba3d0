"""The network and its words: config, transformer, LoRA, tokenizer, chat template, naive generate.

Letters in shape comments, everywhere in this package and in those that import it:

    B sequences · T new tokens · S visible context · N tokens of a ragged batch · L layers
    H query heads · K key/value heads · D head width · E model width · F feed-forward width
    V vocabulary · R LoRA rank

Import from the modules: torch is loaded by those that need it, and by nothing else.
"""
