package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// The error codes of the REST interface.
const (
	codeSubjectNotFound   = 40401
	codeVersionNotFound   = 40402
	codeSchemaNotFound    = 40403
	codeSubjectDeleted    = 40404
	codeSubjectNotDeleted = 40405
	codeVersionDeleted    = 40406
	codeVersionNotDeleted = 40407
	codeNoSubjectLevel    = 40408
	codeNoSubjectMode     = 40409
	codeInvalidSchema     = 42201
	codeInvalidVersion    = 42202
	codeInvalidLevel      = 42203
	codeNotPermitted      = 42205
	codeReferenceExists   = 42206
	codeInvalidSubject    = 42208
	codeTooLarge          = 42209
	codeStore             = 50001
	codeTimeout           = 50002
)

// apiError is an answer that is no success. Its text is for the client.
type apiError struct {
	status, code int
	text         string
}

func (e *apiError) Error() string { return e.text }

// answerOf is what a client is told of an error. What is not meant for clients becomes a sentence that says nothing of
// our inside; the log has the rest.
func answerOf(err error) *apiError {
	var api *apiError
	switch {
	case errors.As(err, &api):
		return api
	case errors.Is(err, errNotReady):
		return &apiError{http.StatusServiceUnavailable, codeStore, errNotReady.Error()}
	case errors.Is(err, errRecordTooLarge):
		return &apiError{422, codeTooLarge, "the schema is larger than the registry's topic takes"}
	case errors.Is(err, context.DeadlineExceeded):
		return &apiError{http.StatusInternalServerError, codeTimeout, "the registry's store did not answer in time: the write may or may not have happened; ask again"}
	}
	return &apiError{http.StatusInternalServerError, codeStore, "the registry's store failed: the write may or may not have happened; ask again"}
}

// errRecordTooLarge is in a store's error when a record is larger than it takes.
var errRecordTooLarge = errors.New("the record is too large")

func subjectNotFound(subject string) error {
	return &apiError{404, codeSubjectNotFound, fmt.Sprintf("Subject '%s' not found.", clip(subject))}
}

func invalidSchema(err error) error {
	return &apiError{422, codeInvalidSchema, "Invalid schema: " + err.Error()}
}

func incompatible(subject string, old *version, found []conflict) error {
	return &apiError{http.StatusConflict, http.StatusConflict, fmt.Sprintf(
		"Schema being registered is incompatible with an earlier schema for subject \"%s\", details: [%s]",
		clip(subject), strings.Join(messages(found, old), ", "))}
}

// explanations say what a conflict means to who wrote the new schema.
var explanations = map[string]string{
	"FIXED_SIZE_MISMATCH":                "The size of a fixed type differs",
	"MISSING_ENUM_SYMBOLS":               "The reader's enum lacks symbols that the writer has, and has no default",
	"MISSING_UNION_BRANCH":               "The reader's union lacks a type of the writer",
	"NAME_MISMATCH":                      "The name of a type has changed, and no alias names the old one",
	"READER_FIELD_AMBIGUOUS":             "A field and its aliases match several fields of the writer",
	"READER_FIELD_MISSING_DEFAULT_VALUE": "The reader has a field without a default that the writer does not write",
	"TYPE_MISMATCH":                      "The reader's type cannot be read from the writer's",
}

// messages are the conflicts with an old version, each in the notation that clients know.
func messages(found []conflict, old *version) []string {
	all := make([]string, 0, len(found)+2)
	for _, c := range found {
		all = append(all, fmt.Sprintf("{errorType:'%s', description:'%s, at path %s', additionalInfo:'%s'}", c.kind, explanations[c.kind], c.location, clip(c.message)))
	}
	return append(all, fmt.Sprintf("{oldSchemaVersion: %d}", old.number), fmt.Sprintf("{oldSchema: '%s'}", old.content.text))
}
