"""Commands that make something whole: the demo model, a full-size random checkpoint, the contact sheet."""
