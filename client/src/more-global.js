// The classic script more.js extends the global Pushy that pushy.js defines.
import { extend } from "./more.js";

extend(/** @type {any} */ (globalThis).Pushy);
