// Package producer publishes events.
package producer
