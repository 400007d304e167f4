// Package service is a service author's main.
package service
