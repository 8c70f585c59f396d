package inference

import (
	"testing"
	"time"
)

// What is slower is refused by enough pairs, or if it left no time for them; not because others did.
func TestFewPairsRefuseNobody(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	for name, c := range map[string]struct {
		r    laps
		want bool
	}{
		"enough pairs":                {laps{[]time.Duration{ms, ms, ms}, []time.Duration{9 * ms, 9 * ms, 9 * ms}, 40 * ms}, true},
		"enough, as fast":             {laps{[]time.Duration{ms, ms, ms}, []time.Duration{ms, ms, ms}, 4 * ms}, false},
		"enough, one of them as fast": {laps{[]time.Duration{ms, ms, ms}, []time.Duration{9 * ms, ms, 9 * ms}, 20 * ms}, false},
		"few: the other was stopped":  {laps{[]time.Duration{ms, ms}, []time.Duration{5 * s, 5 * s}, 15 * s}, false},
		"one that was cut off":        {laps{[]time.Duration{5 * s}, []time.Duration{25 * s}, 25 * s}, false},
		"it took all the time":        {laps{[]time.Duration{ms}, []time.Duration{raceAtMost - ms}, raceAtMost - ms}, true},
		"it took all, warming up too": {laps{[]time.Duration{ms, ms}, []time.Duration{13 * s, 4 * s}, raceAtMost - ms}, true},
	} {
		before, after, refused := c.r.judge(3)
		if refused != c.want || before == 0 || after == 0 {
			t.Errorf("%s: %v and %v, refused %v, want %v", name, before, after, refused, c.want)
		}
	}
}
