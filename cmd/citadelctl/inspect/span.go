package inspect

import (
	"fmt"
	"time"
)

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// Span says a length of time in at most two units, as fine as a person cares
// for: 95s, 57m, 18h57m, 2d4h, 300d, 9y364d.
func Span(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 2*day:
		return two(d, time.Hour, "h", time.Minute, "m")
	case d < 8*day:
		return two(d, day, "d", time.Hour, "h")
	case d < 2*year:
		return fmt.Sprintf("%dd", d/day)
	}
	return two(d, year, "y", day, "d")
}

func two(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	if rest := d % big / small; rest > 0 {
		return fmt.Sprintf("%d%s%d%s", d/big, bigName, rest, smallName)
	}
	return fmt.Sprintf("%d%s", d/big, bigName)
}
