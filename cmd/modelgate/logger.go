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
		return slog.New(slog.NewJSONHandler(s, &slog.HandlerOptions{Level: level}))
	}
	return slog.New(tint.NewHandler(s, &tint.Options{Level: level, TimeFormat: time.TimeOnly, NoColor: !bool(a.palette(a.err))}))
}
