// Package secret holds a string that prints *** in every format, so that no log line, error or JSON shows it.
//
//	password := secret.New(text)
//	fmt.Println(password)          // ***
//	login(user, password.Reveal()) // the one place that needs it
package secret

import (
	"fmt"
	"io"
)

// mask is what a secret prints. Its length says nothing of the secret's.
const mask = "***"

// String is a secret. Reveal is the only way to its text. The zero value is no secret and prints as nothing, so
// that a missing password can be told from a hidden one.
//
// Two values are equal (==) only when one is a copy of the other; compare secrets in constant time, by Reveal.
type String struct {
	// A pointer, because fmt prints the unexported fields of whoever holds a String by reflection, past every
	// method of this type: it then shows an address.
	text *string
}

// New returns s as a secret. New("") is the zero value.
func New(s string) String {
	if s == "" {
		return String{}
	}
	return String{&s}
}

// Reveal returns the secret's text, for the one place that needs it.
func (s String) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero reports whether there is no secret.
func (s String) IsZero() bool { return s.text == nil }

// String returns ***, or nothing where there is no secret.
func (s String) String() string {
	if s.IsZero() {
		return ""
	}
	return mask
}

// Format writes [String.String] for every verb, %#v and %x included.
func (s String) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText returns [String.String]: JSON, YAML and the encoders of logs end here.
func (s String) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
