//go:build race

package modelstore

import "runtime"

// yieldInRace gives other goroutines a chance between loading a pointer and pinning what it points to: race builds only, so that
// tests hit the window that a wrong order would open.
func yieldInRace() { runtime.Gosched() }
