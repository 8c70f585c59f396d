package worker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"modelgate/inference/engine"
)

// A Job is work that a child process does once, in the walls of a worker and where nobody else wants to run. What it is, is between
// the caller of Do and Host.Job.
type Job struct {
	Spec      any           // becomes JSON
	Reads     []string      // files and folders that may be read, besides the libraries
	Writes    []string      // files that exist, and may be written
	FileLimit int64         // most bytes of each of them
	DataLimit int64         // most bytes of memory; 0: as the Engine's workers
	Timeout   time.Duration // 0: as long as a load may take
}

// Do starts a process, has it do the job, and decodes what comes of it into result. That the process dies of the job, or takes longer
// than it may, is an error that wraps engine.ErrGraph: what the job was done with is at fault. That it couldn't be started, was
// killed from outside or kept from running isn't; neither is an error that Host.Job returned, unless that says so. The process has
// ended when Do returns, and ends at once when ctx does.
func (e *Engine) Do(ctx context.Context, j Job, result any) error {
	spec, err := json.Marshal(j.Spec)
	if err != nil {
		return fmt.Errorf("encode a job: %w", err)
	}
	open := openMessage{
		Protocol: protocolVersion, MaxData: e.o.MaxData, DataLimit: e.o.DataLimit,
		Job: &job{Spec: spec, Reads: j.Reads, Writes: j.Writes, FileLimit: j.FileLimit},
	}
	if j.DataLimit > 0 {
		open.DataLimit = j.DataLimit
	}
	o := e.o
	o.LoadTimeout = cmp.Or(j.Timeout, o.LoadTimeout)
	c, opened, err := start(ctx, o, e.pace, watch{}, open)
	if err != nil {
		return err
	}
	c.close()
	if s := c.cmd.ProcessState; s != nil {
		e.o.Logger.Debug("a job is done", "pid", s.Pid(), "took", time.Since(c.born), "processor", s.UserTime()+s.SystemTime())
	}
	if err := json.Unmarshal(opened.Result, result); err != nil {
		return fmt.Errorf("%w: what came of a job: %w", engine.ErrGraph, err)
	}
	return nil
}
