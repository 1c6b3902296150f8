"""Words as types, errors, files, configuration: imports nothing of ours."""
