package duckdb

type locator struct{ e *Engine }
type reader struct{ e *Engine }
type fileWriter struct{ e *Engine }
