package schemas

// Rows are column vectors: events as flat rows, ready for a database or a file.
type Rows struct{}
