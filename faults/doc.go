// Package faults breaks what the gateway stands on while callers ask it, and sees that they notice nothing.
//
// It holds tests only. Each is a row of the table in docs/RELIABILITY.md: a fault, what callers are promised, how the fault is made,
// and what happened. The gateway is the real program, the registry a real MLflow server behind a proxy that breaks its answers, the
// files real files. A row without enough requests during its fault proves nothing, and fails as void.
//
// `go test ./faults` runs a short form; `make faults` the long one, and writes the table.
package faults
