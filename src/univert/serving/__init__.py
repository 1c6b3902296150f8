"""From a model and a catalogue to answers."""
