"""From a catalogue to one unified model."""
