/** The device's camera, shown in a <video> element. */

import { Problem } from "./problem.js";

const CHOOSE_INSTEAD = "Or choose a picture file instead.";

/** Whether the browser lets this page use the camera; it does not if the page was loaded over plain http. */
export function isAvailable() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

/**
 * Shows the camera's picture, of the camera at the back of a phone if there is one.
 *
 * @param {HTMLVideoElement} video
 * @throws {Problem} there is no camera, or it may not be used
 */
export async function open(video) {
  try {
    const constraints = { audio: false, video: { facingMode: "environment", width: { ideal: 1280 } } };
    video.srcObject = await navigator.mediaDevices.getUserMedia(constraints);
    await video.play();
  } catch (error) {
    close(video);
    throw explain(error);
  }
}

/** @param {HTMLVideoElement} video */
export function close(video) {
  video.srcObject?.getTracks().forEach((track) => track.stop());
  video.srcObject = null;
}

function explain(error) {
  switch (error.name) {
    case "NotAllowedError":
      return new Problem(
        "The browser does not let this page use the camera.",
        `Allow the camera in the browser's settings for this site, and try again. ${CHOOSE_INSTEAD}`,
      );
    case "NotFoundError":
      return new Problem("The browser finds no camera.", `Connect one, and try again. ${CHOOSE_INSTEAD}`);
    case "NotReadableError":
      return new Problem(
        "The camera cannot be opened: another program may be using it.",
        `Close that program, and try again. ${CHOOSE_INSTEAD}`,
      );
    default:
      return new Problem(`The camera does not start: ${error.message}.`, CHOOSE_INSTEAD);
  }
}
