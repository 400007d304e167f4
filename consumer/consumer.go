// Package consumer hands events to handlers.
package consumer
