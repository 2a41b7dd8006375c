package host

import (
	"fmt"
	"os"
	"strings"
)

// Uptime words how long the host is up, as the program of that name does.
func Uptime() string {
	b, err := os.ReadFile("/proc/uptime")
	load, err2 := os.ReadFile("/proc/loadavg")
	var up float64
	if err != nil || err2 != nil {
		return ""
	}
	if _, err := fmt.Sscan(string(b), &up); err != nil {
		return ""
	}
	l := strings.Fields(string(load))
	s := int64(up)
	return fmt.Sprintf("up %d days, %d:%02d, load average: %s", s/86400, s/3600%24, s/60%60, strings.Join(l[:3], ", "))
}
