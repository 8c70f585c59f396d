package faults_test

import "testing"

func TestRegistryDownAtStartWithCache(t *testing.T) {
	b := begin(t, row{group: "registry", fault: "MLflow is down when the gateway starts; a version is in the cache",
		promise: "that version, at once", how: "its port is closed before the start, and opened later"})
	r := b.mlflow()
	r.promote(r.publish(0.80))
	g := b.start()
	g.serves(1)
	g.terminate()
	r.down()
	g = b.start()
	g.serves(1)
	b.ask(g)
	b.during(func() { b.requests(100) })
	r.promote(r.publish(0.85))
	if err := r.up(); err != nil {
		t.Fatal(err)
	}
	b.answeredBy(2)
	b.onlyBy(1, 2)
	b.note("version 2 serves once MLflow is back")
}
