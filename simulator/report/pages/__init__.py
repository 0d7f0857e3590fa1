"""One page for each kind of result: a module, a template of the same name, and what all pages share."""
