package process_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"kilonova/test/process"
)

// certificate writes a self-signed certificate for loopback and gives the two files and a pool that trusts it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kilonova test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key, pool = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), x509.NewCertPool()
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	pool.AppendCertsFromPEM(text)
	if err := os.WriteFile(cert, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return cert, key, pool
}

func TestTLS(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	cert, key, pool := certificate(t)
	p := process.Program{Path: build(t), Dir: filepath.Join(t.TempDir(), "state")}
	x, err := p.Start(ctx, "up", "--listen", "127.0.0.1:0", "--compute-driver", "fake", "--tls-cert", cert, "--tls-key", key, "--set", "identity.bcrypt_cost=4")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Stop(); err != nil {
			t.Error(err)
		}
	})
	if !strings.HasPrefix(x.URL, "https://") {
		t.Fatal(x.URL)
	}
	get := func(url string, roots *x509.CertPool) (int, error) {
		c := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
		defer c.CloseIdleConnections()
		resp, err := c.Get(url)
		if err != nil {
			return 0, err
		}
		return resp.StatusCode, resp.Body.Close()
	}
	if code, err := get(x.URL+"/identity/v3", pool); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	if _, err := get(x.URL+"/identity/v3", x509.NewCertPool()); err == nil {
		t.Fatal("an unknown certificate was trusted")
	}
	if code, err := get(strings.Replace(x.URL, "https", "http", 1)+"/identity/v3", pool); err == nil && code == 200 {
		t.Fatal("it also speaks plain HTTP")
	}
	clouds, err := os.ReadFile(filepath.Join(p.Dir, "clouds.yaml"))
	if err != nil || !strings.Contains(string(clouds), "cacert: "+cert) || !strings.Contains(string(clouds), "auth_url: https://") {
		t.Fatalf("%s %v", clouds, err)
	}
}
