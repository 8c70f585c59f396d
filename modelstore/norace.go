//go:build !race

package modelstore

func yieldInRace() {}
