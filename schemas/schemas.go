// Package schemas ties bytes to their schemas.
package schemas

import (
	"context"
	"errors"

	"github.com/millrace/millrace/event"
)

// The errors that decide what a consumer does next.
var (
	// ErrPoison: the bytes do not decode, the frame is bad, or the id is unknown to a healthy registry. Dead-letter it.
	ErrPoison = errors.New("poison")
	// ErrUnavailable: the registry cannot be reached or answers 5xx. Wait and try again; never skip, never dead-letter.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrIncompatible: the writer's schema cannot be read as the type that was asked for.
	ErrIncompatible = errors.New("incompatible schema")
	// ErrNotFound: the registry has no such subject, version or id.
	ErrNotFound = errors.New("not found")
)

// Registry encodes and decodes events by the schemas of a registry.
type Registry struct{}

// Encode appends e's data to dst in the topic's format and framing, and sets e.Type and e.ContentType.
func (r *Registry) Encode(ctx context.Context, dst []byte, e *event.Event) ([]byte, error) {
	return nil, errors.ErrUnsupported
}

// TypeOf is the full name of the schema that e.Value was written with, else e.Type.
func (r *Registry) TypeOf(ctx context.Context, e *event.Event) (string, error) {
	return "", errors.ErrUnsupported
}

// Decode decodes e.Value into into: a *T, or a *any for generic records.
func (r *Registry) Decode(ctx context.Context, e *event.Event, into any) error {
	return errors.ErrUnsupported
}

// NameOf and the rest follow the sheet.
type Naming int

// The subject namings.
const (
	ByTopic Naming = iota
	ByRecord
	ByTopicRecord
)
