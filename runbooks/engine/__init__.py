"""The one gate through which anything is changed: guards, confirmation, journal, act, look again."""
