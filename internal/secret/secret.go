// Package secret holds a string that prints *** in every format, so that no log line, error or JSON shows it.
package secret

// String is a secret. Reveal is the only way to its text.
type String struct{ s string }

// New returns s as a secret.
func New(s string) String { return String{s} }

// Reveal returns the secret's text, for the one place that needs it.
func (s String) Reveal() string { return s.s }

// IsZero reports whether there is no secret.
func (s String) IsZero() bool { return s.s == "" }
