//! TLS records made and opened by the kernel.

use super::tls::Session;
use super::{Arrival, Life, Transport};
use crate::driver::{Driver, Errno};
use crate::types::Demand;

impl<H> Transport<H> {
    /// Whether the kernel makes and opens the records of TLS.
    pub(crate) fn is_offloaded(&self) -> bool {
        self.tls().is_some_and(Session::is_offloaded)
    }

    /// Gives the records of TLS to the kernel, if that is possible now. False: the connection has failed, and the failure
    /// is queued.
    pub(crate) fn offload<D: Driver<Handle = H>>(&mut self, driver: &mut D) -> bool {
        if self.is_in_flight() || self.outgoing.has_sealed() || self.has_arrivals() {
            return true;
        }
        let (Some(handle), Some(extra)) = (self.port.handle(), &mut self.extra) else { return true };
        let Some(failure) = extra.stage.tls_mut().and_then(|session| session.offload(handle, driver)) else {
            return true;
        };
        self.drop_after_failure(driver);
        self.keep(failure, driver);
        false
    }

    /// As `offload`, for a client in a conversation of which the kernel is to make the records.
    pub(super) fn settle_offload<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        if self.tls().is_some_and(Session::wants_offload)
            && self.life == Life::Open
            && self.mode.demand() == Demand::Flow
        {
            self.offload(driver);
        }
    }

    /// Handles a failed receive of a connection whose records the kernel opens.
    pub(super) fn receive_record<D: Driver<Handle = H>>(&mut self, errno: Errno, driver: &mut D) -> Option<Arrival> {
        let (handle, extra) = (self.port.handle()?, self.extra.as_mut()?);
        let arrival = extra.stage.tls_mut()?.receive_record(errno, handle, driver);
        self.drop_after_failure(driver);
        arrival
    }

    /// Makes the close_notify, unless the connection has failed. The kernel sends its own at once.
    pub(super) fn close_session<D: Driver<Handle = H>>(&mut self, driver: &mut D) {
        let Some(session) = self.extra.as_mut().and_then(|extra| extra.stage.tls_mut()) else { return };
        if let Some(handle) = self.port.handle() {
            session.close_by_kernel(handle, driver);
        }
        session.close();
    }

    /// Whether the close_notify is the kernel's, and was not sent.
    pub(super) fn owes_close_notify(&self) -> bool {
        self.tls().is_some_and(|session| session.is_offloaded() && !session.is_closed())
    }

    /// Forgets the stage of a client whose backend has its socket: nothing more is sent here.
    pub(crate) fn leave_stage(&mut self) {
        if let Some(stage) = self.stage_mut() {
            *stage = super::Stage::Plain;
        }
        self.forget_extra();
    }
}
