package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"kilonova/internal/fault"
)

// serverConnector makes connections to a server database that say of the errors of a server that is away that they are unavailability.
type serverConnector struct{ driver.Connector }

func openPostgres(url string) (*sql.DB, error) {
	c, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(serverConnector{stdlib.GetConnector(*c)}), nil
}

func openMySQL(url string) (*sql.DB, error) {
	rest := strings.TrimPrefix(url, "mysql://")
	cred, hostpath, ok := strings.Cut(rest, "@")
	if !ok {
		return nil, errors.New("mysql URL: want mysql://user:password@host:port/name")
	}
	host, name, _ := strings.Cut(hostpath, "/")
	name, query, _ := strings.Cut(name, "?")
	c := mysql.NewConfig()
	c.User, c.Passwd, _ = strings.Cut(cred, ":")
	c.Net, c.Addr, c.DBName = "tcp", host, name
	if strings.HasPrefix(query, "unix_socket=") {
		c.Net, c.Addr = "unix", strings.TrimPrefix(query, "unix_socket=")
	}
	c.InterpolateParams = true
	c.ClientFoundRows = true // rows matched, as the other two count
	c.Params = map[string]string{"sql_mode": "'ANSI_QUOTES,STRICT_ALL_TABLES'", "time_zone": "'+00:00'"}
	c.Collation = "utf8mb4_bin"
	c.Logger = &mysql.NopLogger{} // what it would tell is in the errors too
	m, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(serverConnector{m}), nil
}

// IsAway tells whether err says that the database's server could not be reached, or was lost in the middle: what was being written is then there or not, and whoever cares
// has to look. It is a fault.Unavailable. SQLite is never away. An error of another process, which came over the bus, tells it too.
func IsAway(err error) bool { return fault.IsAway(err) }

// IsUncertain tells whether a Write that failed with err may have been committed all the same: its answer was lost, or not waited for. What belongs to the rows that it should
// have made must then be left alone.
func IsUncertain(err error) bool {
	return IsAway(err) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// away makes an error of a connection that is lost, or cannot be had, one for which IsAway is true.
func away(err error) error {
	if err == nil || !lost(err) {
		return err
	}
	return fault.Wrap(fmt.Errorf("%w: %w", fault.ErrAway, err), fault.Unavailable, "The database cannot be reached. Try again.")
}

func lost(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var p *pgconn.PgError
	if errors.As(err, &p) {
		switch p.Code {
		case "57P01", "57P02", "57P03", "53300": // it shuts down, has crashed, starts; too many connections
			return true
		}
		return p.Code[:min(2, len(p.Code))] == "08" // connection exceptions
	}
	var m *mysql.MySQLError
	if errors.As(err, &m) {
		switch m.Number {
		case 1040, 1053, 1077, 1079, 1927: // too many connections; it shuts down; the connection was killed
			return true
		}
		return false
	}
	var n net.Error
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &n) ||
		pgconn.SafeToRetry(err)
}

func (c serverConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, away(err)
	}
	able, ok := conn.(ableConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connections of type %T lack what is needed", conn), conn.Close())
	}
	return serverConn{able}, nil
}

type ableConn interface {
	driver.Conn
	driver.Pinger
	driver.ExecerContext
	driver.QueryerContext
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.SessionResetter
	driver.NamedValueChecker
}

type serverConn struct{ ableConn }

func (c serverConn) Ping(ctx context.Context) error { return away(c.ableConn.Ping(ctx)) }

func (c serverConn) ResetSession(ctx context.Context) error {
	return away(c.ableConn.ResetSession(ctx))
}

// IsValid is asked before a connection is put back for others.
func (c serverConn) IsValid() bool {
	v, ok := c.ableConn.(driver.Validator)
	return !ok || v.IsValid()
}

func (c serverConn) ExecContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Result, error) {
	r, err := c.ableConn.ExecContext(ctx, q, args)
	return r, away(err)
}

func (c serverConn) QueryContext(ctx context.Context, q string, args []driver.NamedValue) (driver.Rows, error) {
	return rowsOf(c.ableConn.QueryContext(ctx, q, args))
}

func (c serverConn) PrepareContext(ctx context.Context, q string) (driver.Stmt, error) {
	s, err := c.ableConn.PrepareContext(ctx, q)
	if err != nil {
		return nil, away(err)
	}
	able, ok := s.(ableStmt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("statements of type %T lack what is needed", s), s.Close())
	}
	return serverStmt{able}, nil
}

func (c serverConn) BeginTx(ctx context.Context, o driver.TxOptions) (driver.Tx, error) {
	t, err := c.ableConn.BeginTx(ctx, o)
	if err != nil {
		return nil, away(err)
	}
	return serverTx{t}, nil
}

type serverTx struct{ driver.Tx }

func (t serverTx) Commit() error   { return away(t.Tx.Commit()) }
func (t serverTx) Rollback() error { return away(t.Tx.Rollback()) }

type ableStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type serverStmt struct{ ableStmt }

func (s serverStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	r, err := s.ableStmt.ExecContext(ctx, args)
	return r, away(err)
}

func (s serverStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return rowsOf(s.ableStmt.QueryContext(ctx, args))
}

type serverRows struct{ driver.Rows }

func rowsOf(r driver.Rows, err error) (driver.Rows, error) {
	if err != nil {
		return nil, away(err)
	}
	return serverRows{r}, nil
}

func (r serverRows) Next(to []driver.Value) error {
	err := r.Rows.Next(to)
	if err == io.EOF { // the end of the rows
		return err
	}
	return away(err)
}

func (r serverRows) Close() error { return away(r.Rows.Close()) }
