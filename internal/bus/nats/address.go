package nats

import (
	"fmt"
	"net"
	"strconv"
)

func splitHostPort(s string) (string, int, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("bus listen address %q: want HOST:PORT: %w", s, err)
	}
	port, err := strconv.Atoi(p)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("bus listen address %q: the port is no number", s)
	}
	if port == 0 {
		port = -1 // the server's word for any free port
	}
	return host, port, nil
}
