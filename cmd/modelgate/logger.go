package main

import (
	"log/slog"
	"time"

	"github.com/lmittmann/tint"

	"modelgate/cmd/modelgate/config"
)

// logger writes to s: for people on a terminal, JSON otherwise.
func (a *app) logger(s *screen, o config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(o.Level)) // the configuration has only names that slog knows
	if o.Format == "json" || o.Format == "auto" && !s.terminal {
		return slog.New(slog.NewJSONHandler(s, &slog.HandlerOptions{Level: level, ReplaceAttr: readable}))
	}
	return slog.New(tint.NewTextHandler(s, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !bool(a.palette(a.err))}))
}

// readable writes durations as "1.5s", not as a number of nanoseconds.
func readable(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}
