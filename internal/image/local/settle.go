package local

import (
	"context"
	"errors"
	"slices"
	"time"

	"kilonova/internal/db"
	"kilonova/internal/fault"
	"kilonova/internal/image"
)

// settleFor is how long it is tried to write down how an upload ended while its caller waits.
const settleFor = 30 * time.Second

// behind runs f behind the scenes, and Close waits for it; false once the service closes.
func (s *Service) behind(f func()) bool {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.ctx.Err() != nil {
		return false
	}
	s.work.Go(f)
	return true
}

// insist repeats try until the database has answered it, or ctx ends. What an earlier try wrote may be there: try has to know its own work again.
func (s *Service) insist(ctx context.Context, try func(ctx context.Context) error) error {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := try(ctx)
		if !db.IsUncertain(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// bounded is try with a time of its own: what has begun is not cut off when the service stops.
func bounded(try func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleFor)
		defer cancel()
		return try(ctx)
	}
}

// settle has try write down how an upload ended, also when its caller has gone. While the database is away the caller waits for a while, and the service goes on trying behind the
// scenes; failed is called when the answer is that it cannot be. Without an answer until the service stops, the next start decides by what the database says.
func (s *Service) settle(try func(ctx context.Context) error, failed func()) error {
	once := bounded(try)
	err := once(s.ctx)
	switch {
	case err == nil:
		return nil
	case !db.IsUncertain(err):
		failed()
		return err
	}
	s.log.Warn("the database is away at the end of an upload, trying again", "error", err)
	answer := make(chan error, 1)
	if !s.behind(func() {
		err := s.insist(s.ctx, once)
		if err != nil && !db.IsUncertain(err) {
			failed()
		}
		answer <- err
	}) {
		return err
	}
	select {
	case err = <-answer:
		return err
	case <-time.After(settleFor):
		return fault.Wrap(err, fault.Unavailable, "The database does not answer. What became of the image's data is written down when it does: look at the image's status then.")
	}
}

// abandon makes the image queued again after an upload that failed. While the database is away this goes on behind the scenes; should it come to nothing, the next start does it.
func (s *Service) abandon(r *Record) {
	try := bounded(func(ctx context.Context) error {
		_, err := s.Change(ctx, r.ID, func(now *Record) error {
			if err := r.holds(now); err != nil {
				return err
			}
			now.Status, now.node, now.token = image.Queued, "", ""
			return nil
		})
		return err
	})
	told := func(err error) {
		if err != nil && !errors.Is(err, fault.NotFound) && !errors.Is(err, fault.Gone) {
			s.log.Warn("image stays in its state after a failed upload", "image_id", r.ID, "error", err)
		}
	}
	err := try(s.ctx)
	if !db.IsUncertain(err) {
		told(err)
		return
	}
	s.behind(func() { told(s.insist(s.ctx, try)) })
}

// unclaimed removes data of an image that its record stopped naming in a transaction of unknown outcome, once the database has told that it did. deleted is called when the whole
// record is gone.
func (s *Service) unclaimed(imageID, staged string, locations []Location, deleted func()) {
	s.behind(func() {
		var now *Record
		err := s.insist(s.ctx, func(ctx context.Context) (err error) {
			now, err = read(ctx, s.db, imageID, "")
			return err
		})
		switch {
		case errors.Is(err, fault.NotFound):
			s.discard(staged, locations...)
			deleted()
		case err != nil: // the next start sweeps
			s.log.Warn("data of an image may be left until the next start", "image_id", imageID, "error", err)
		default:
			for _, l := range locations {
				if !now.names(l) {
					s.discard("", l)
				}
			}
		}
	})
}

// names tells whether the record has its data at l.
func (r *Record) names(l Location) bool {
	return slices.ContainsFunc(r.Locations, func(have Location) bool { return have.Store == l.Store && have.Key == l.Key })
}
