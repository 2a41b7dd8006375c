package dataplane

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"
)

// metadataSix is the metadata service's IPv6 address, on each link of its own: what cloud-init asks where there is no IPv4.
const metadataSix = "fe80::a9fe:a9fe"

// serveMetadata answers http://169.254.169.254 on a bridge. Who asks is known by the bridge and the source address, which
// anti-spoofing vouches for.
func (p *Plane) serveMetadata(bridge string, c *current) (func() error, error) {
	return p.metadataAt(bridge, c, "tcp4", metadataAddress+":80")
}

// serveMetadataSix answers http://[fe80::a9fe:a9fe] on a bridge.
func (p *Plane) serveMetadataSix(bridge string, c *current) (func() error, error) {
	if !hasSix(bridge) {
		return nil, nil
	}
	return p.metadataAt(bridge, c, "tcp6", "["+metadataSix+"%"+bridge+"]:80")
}

// hasSix tells whether an interface speaks IPv6.
func hasSix(link string) bool {
	off, err := readSetting("net/ipv6/conf/" + link + "/disable_ipv6")
	return err == nil && off == "0"
}

func (p *Plane) metadataAt(bridge string, c *current, family, at string) (func() error, error) {
	if p.cfg.Metadata == nil {
		return nil, nil
	}
	lc := onDevice(bridge)
	l, err := lc.Listen(background(), family, at)
	if err != nil {
		return nil, fmt.Errorf("listen for metadata on %s: %w", bridge, err)
	}
	srv := &http.Server{Handler: guestOnly(c, p.cfg.Metadata), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: time.Minute, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10}
	go func() {
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
			p.log.Warn("metadata listener ended", "bridge", bridge, "error", err)
		}
	}()
	return srv.Close, nil
}

// guestOnly tells next which server asks, and answers 404 to whom it does not know. What the guest itself says about its
// identity is removed.
func guestOnly(c *current, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, err := netip.ParseAddrPort(r.RemoteAddr)
		v := c.view.Load()
		if err != nil || v == nil {
			http.NotFound(w, r)
			return
		}
		addr := from.Addr().Unmap().WithZone("")
		port := v.ports[addr]
		if port == nil && addr.IsLinkLocalUnicast() && addr.Is6() {
			if port = v.macs[macOf(addr).String()]; port != nil && len(port.Addresses) > 0 {
				if a, err := netip.ParseAddr(port.Addresses[0]); err == nil {
					addr = a // the one that the network service knows
				}
			}
		}
		if port == nil || port.ServerID == "" {
			http.NotFound(w, r)
			return
		}
		r = r.Clone(r.Context())
		for _, h := range []string{"X-Instance-ID-Signature", "X-Tenant-ID-Signature", "X-Metadata-Provider", "X-Metadata-Provider-Signature", "Forwarded", "X-Real-IP", "X-Auth-Token"} {
			r.Header.Del(h)
		}
		r.Header.Set("X-Instance-ID", port.ServerID)
		r.Header.Set("X-Tenant-ID", port.ProjectID)
		r.Header.Set("X-Neutron-Network-ID", v.net.ID)
		r.Header.Set("X-Forwarded-For", addr.String())
		next.ServeHTTP(w, r)
	})
}
