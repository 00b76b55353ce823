package limit_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/gopushy/pushy/internal/limit"
)

func TestBudgetRefills(t *testing.T) {
	t.Parallel()
	var b limit.Budget
	now := time.Unix(1700000000, 0)
	for range 200 {
		assert.Equal(t, limit.OK, b.Spend(now, 100, 200))
	}
	assert.Equal(t, limit.Over, b.Spend(now, 100, 200))
	now = now.Add(10 * time.Millisecond)
	assert.Equal(t, limit.OK, b.Spend(now, 100, 200), "one came in")
	assert.Equal(t, limit.Over, b.Spend(now, 100, 200))
	now = now.Add(time.Hour)
	for range 200 {
		assert.Equal(t, limit.OK, b.Spend(now, 100, 200), "no more than the burst fits")
	}
	assert.Equal(t, limit.Over, b.Spend(now, 100, 200))
}

func TestBudgetAbuse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		pause time.Duration // the start of a pause of 2.5 s without messages
		abuse time.Duration // the time of the verdict Abuse
	}{
		{"tenSeconds", 0, 10 * time.Second},
		{"aPauseForgives", 9 * time.Second, 21500 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var b limit.Budget
			begin := time.Unix(1700000000, 0)
			for at := time.Duration(0); ; at += 5 * time.Millisecond {
				if c.pause > 0 && at > c.pause && at < c.pause+2500*time.Millisecond {
					continue
				}
				if b.Spend(begin.Add(at), 100, 1) == limit.Abuse {
					assert.InDelta(t, c.abuse.Seconds(), at.Seconds(), 0.05)
					return
				}
				if at > time.Minute {
					t.Fatal("never called abuse")
				}
			}
		})
	}
}

func TestBudgetOff(t *testing.T) {
	t.Parallel()
	var b limit.Budget
	for range 1000 {
		assert.Equal(t, limit.OK, b.Spend(time.Unix(0, 0), -1, 200))
	}
}
